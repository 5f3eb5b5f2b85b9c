//! Checks the links, options, variables and messages that the documents name.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The sources that define the options of the programs.
const OPTIONS: [&str; 3] = [
    "crates/agent/src/args.rs",
    "crates/cli/src",
    "crates/relay/src",
];
/// Options of other programs, and options that every program has.
const NOT_OURS: [&str; 4] = ["features", "help", "lib", "once"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the documents, by their paths below the root.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .map(PathBuf::from)
        .into();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name();
        paths.push(Path::new("docs").join(name));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Returns the text of a file, or of all files below a folder.
fn text(path: &Path) -> String {
    if path.is_file() {
        return fs::read_to_string(path).unwrap_or_default();
    }
    let entries = fs::read_dir(path).unwrap();
    let texts = entries.map(|entry| text(&entry.unwrap().path()));
    texts.collect()
}

/// Returns the anchors of a page's headings, as the usual viewers make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut anchors = BTreeSet::new();
    for line in page.lines() {
        is_code ^= line.starts_with("```");
        if is_code || !line.starts_with('#') {
            continue;
        }
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        anchors.insert(kept.collect::<String>().replace(' ', "-"));
    }
    anchors
}

#[test]
fn every_link_of_the_pages_leads_to_a_file_and_a_heading() {
    let mut links = 0;
    for (path, page) in pages() {
        for target in page.split("](").skip(1) {
            let target = target.split(')').next().unwrap();
            if target.starts_with("https://") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => root().join(&path),
                file => root().join(&path).with_file_name("").join(file),
            };
            assert!(file.exists(), "{}: {target}", path.display());
            let found = anchor.is_empty() || anchors(&text(&file)).contains(anchor);
            assert!(found, "{}: no heading for {target}", path.display());
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn every_option_and_variable_that_the_pages_name_exists() {
    let all = OPTIONS.map(|path| text(&root().join(path))).concat();
    let scripts = text(&root().join("x")) + &text(&root().join("scripts"));
    let variables =
        text(&root().join("crates")) + &text(&root().join("benches/src")) + &scripts + &all;
    let mut options = 0;
    for (path, page) in pages() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        for word in page.split(|c| !is_part(c)) {
            let option = word.strip_prefix("--").unwrap_or_default();
            if option.starts_with(|c: char| c.is_ascii_lowercase()) && !NOT_OURS.contains(&option) {
                options += 1;
                let field = format!(" {}: ", option.replace('-', "_"));
                let named = format!("long = \"{option}\"");
                let is_one = all.contains(&field) || all.contains(&named);
                assert!(is_one, "{}: --{option} is no option", path.display());
            }
            if word.starts_with("HEARTH_") {
                let is_one = variables.contains(word);
                assert!(is_one, "{}: {word} is no variable", path.display());
            }
        }
    }
    assert!(options > 50, "{options}");
}

/// Returns a source with the lines of each long text joined.
fn joined(source: &str) -> String {
    let mut lines = source.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

#[test]
fn every_message_that_the_readme_explains_is_one_of_the_programs() {
    let readme = text(&root().join("README.md"));
    let (_, table) = readme.split_once("\n## Troubleshooting").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let sources = joined(&text(&root().join("crates")));
    let messages: Vec<&str> = table
        .lines()
        .filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(messages.len() > 5, "{messages:?}");
    for part in messages.iter().flat_map(|message| message.split('…')) {
        assert!(sources.contains(part), "no program says {part:?}");
    }
}

/// Expands the first list in braces of a pattern.
fn expanded(pattern: &str) -> Vec<String> {
    let Some((start, rest)) = pattern.split_once('{') else {
        return vec![pattern.to_owned()];
    };
    let (list, end) = rest.split_once('}').unwrap();
    let names = list.split(',');
    names.map(|name| [start, name, end].concat()).collect()
}

#[test]
fn every_file_that_mutation_testing_names_exists() {
    let settings = text(&root().join(".cargo/mutants.toml"));
    let patterns = settings
        .split('"')
        .filter(|word| word.starts_with("crates/"));
    let files: Vec<String> = patterns.flat_map(expanded).collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let path = root().join(file.trim_end_matches("*.rs"));
        assert!(path.exists(), "{file} does not exist");
    }
}
