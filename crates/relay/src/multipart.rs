//! Parser of `multipart/form-data` bodies that are complete in memory.

use bytes::Bytes;

/// Maximum number of fields of a form.
const FIELDS_MAX: usize = 16;

/// One field of a form.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) filename: Option<String>,
    pub(crate) content: Bytes,
}

/// Parses a form body with this content type.
pub(crate) fn parse(content_type: &str, body: &Bytes) -> Result<Vec<Field>, &'static str> {
    const BROKEN: &str = "the form is incomplete or malformed; send it again";
    let boundary = boundary(content_type)
        .ok_or("the content type must be multipart/form-data with a boundary")?;
    let (first, between) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
    let mut place = find(body, first.as_bytes(), 0).ok_or(BROKEN)? + first.len();
    let mut fields = Vec::new();
    loop {
        if body[place..].starts_with(b"--") {
            return Ok(fields);
        }
        if fields.len() == FIELDS_MAX {
            return Err("the form has too many fields");
        }
        let head_end = find(body, b"\r\n\r\n", place).ok_or(BROKEN)?;
        let content = head_end + 4;
        // With empty content, the delimiter overlaps the end of the head.
        let end = find(body, between.as_bytes(), content - 2).ok_or(BROKEN)?;
        let head = std::str::from_utf8(&body[place..head_end]).map_err(|_| BROKEN)?;
        let said = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-disposition")
                .then_some(value)
        });
        let said = said.ok_or("a form field has no name")?;
        fields.push(Field {
            name: parameter(said, "name").ok_or("a form field has no name")?,
            filename: parameter(said, "filename"),
            content: body.slice(content.min(end.max(content))..end.max(content)),
        });
        place = end + between.len();
    }
}

fn boundary(content_type: &str) -> Option<String> {
    let (media, rest) = content_type.split_once(';')?;
    let is_form = media.trim().eq_ignore_ascii_case("multipart/form-data");
    let boundary = parameter(rest, "boundary").filter(|_| is_form)?;
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

/// Returns a parameter of `a; name="value"; b=c`.
fn parameter(said: &str, name: &str) -> Option<String> {
    said.split(';').find_map(|part| {
        let (own, value) = part.trim().split_once('=')?;
        let value = value.trim();
        let bare = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        own.trim()
            .eq_ignore_ascii_case(name)
            .then(|| bare.unwrap_or(value).to_owned())
    })
}

fn find(body: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let rest = body.get(from..)?;
    let mut place = 0;
    // Skips to the next possible start, because files are large.
    while let Some(at) = rest[place..].iter().position(|c| *c == what[0]) {
        place += at;
        if rest[place..].starts_with(what) {
            return Some(from + place);
        }
        place += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"x-y\"";
    const FORM: &str = "--x-y\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
        --x-y\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n{}\r\n--x-\r\n{}\n\r\n\
        --x-y\r\nContent-Disposition: form-data; name=none\r\n\r\n\r\n--x-y--\r\n";

    #[test]
    fn a_form_is_read_field_by_field() {
        let fields = parse(TYPE, &Bytes::from_static(FORM.as_bytes())).unwrap();
        let said = |n: usize| (fields[n].name.as_str(), fields[n].filename.as_deref());
        assert_eq!(fields.len(), 3);
        assert_eq!(
            (said(0), &*fields[0].content),
            (("purpose", None), &b"batch"[..])
        );
        assert_eq!(said(1), ("file", Some("a.jsonl")));
        assert_eq!(&*fields[1].content, b"{}\r\n--x-\r\n{}\n", "byte for byte");
        assert_eq!((said(2), fields[2].content.len()), (("none", None), 0));
    }

    #[test]
    fn a_form_cut_anywhere_is_refused_and_breaks_nothing() {
        let whole = FORM.len() - "--\r\n".len();
        for cut in 0..whole {
            let cut = Bytes::copy_from_slice(&FORM.as_bytes()[..cut]);
            assert!(parse(TYPE, &cut).is_err(), "{cut:?}");
        }
        let form = Bytes::from_static(FORM.as_bytes());
        for wrong in [
            "",
            "application/json",
            "multipart/form-data",
            "text/x; boundary=x-y",
        ] {
            assert!(parse(wrong, &form).is_err(), "{wrong}");
        }
        let many = "--x-y\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n".repeat(17);
        assert!(parse(TYPE, &many.into()).is_err());
    }
}
