//! Puts the dashboard and what it loads into the program.

include!("../../ui/embed.rs");

fn main() -> io::Result<()> {
    embed("/", "dashboard.html")
}
