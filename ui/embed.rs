// Included by the build scripts of the programs that serve a page.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Writes `pages.rs` for the page that is served at `at`: the page and all files that it loads,
/// directly or indirectly.
fn embed(at: &str, page: &str) -> io::Result<()> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/dist");
    println!("cargo:rerun-if-changed={}", dist.display());
    let mut files = vec![(at.to_owned(), dist.join(page))];
    if files[0].1.is_file() {
        let mut assets = Vec::new();
        for asset in fs::read_dir(dist.join("assets"))? {
            let path = asset?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            assets.extend(name.map(|name| (name.to_owned(), path.clone())));
        }
        assets.sort();
        let mut next = 0;
        while let Some((_, file)) = files.get(next) {
            let text = fs::read(file)?;
            let text = String::from_utf8_lossy(&text);
            let (loaded, rest) = assets.into_iter().partition(|(name, _)| text.contains(name.as_str()));
            let loaded: Vec<(String, PathBuf)> = loaded;
            let served = loaded.into_iter().map(|(name, path)| (format!("/assets/{name}"), path));
            files.extend(served);
            assets = rest;
            next += 1;
        }
    } else {
        println!("cargo:warning=no pages in ui/dist: {at} will say so; build them in ui/");
        files.clear();
    }
    let rows: String = files.iter().map(|(at, file)| row(at, file)).collect();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("pages.rs"), format!("&[\n{rows}]\n"))
}

fn row(at: &str, file: &Path) -> String {
    let kind = match file.extension().and_then(|kind| kind.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        Some(_) | None => "application/octet-stream",
    };
    let file = file.display().to_string();
    format!("    Page {{ at: {at:?}, kind: {kind:?}, bytes: include_bytes!({file:?}) }},\n")
}
