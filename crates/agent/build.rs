//! Puts the overlay's page and what it loads into the program.

include!("../../ui/embed.rs");

fn main() -> io::Result<()> {
    embed("/overlay", "overlay.html")
}
