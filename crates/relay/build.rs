//! Embeds the dashboard and its files in the program.

include!("../../ui/embed.rs");

fn main() -> io::Result<()> {
    embed("/", "dashboard.html")
}
