//! Puts the overlay's page and what it loads into the program.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/dist");
    println!("cargo:rerun-if-changed={}", pages.display());
    let mut files = vec![("/overlay".to_owned(), pages.join("overlay.html"))];
    if files[0].1.is_file() {
        let assets = fs::read_dir(pages.join("assets"))?;
        for asset in assets {
            let path = asset?.path();
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                files.push((format!("/assets/{name}"), path));
            }
        }
        files.sort();
    } else {
        println!("cargo:warning=no pages in ui/dist: /overlay will say so; build them in ui/");
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
        Some("svg") => "image/svg+xml",
        Some(_) | None => "application/octet-stream",
    };
    let file = file.display().to_string();
    format!("    Page {{ at: {at:?}, kind: {kind:?}, bytes: include_bytes!({file:?}) }},\n")
}
