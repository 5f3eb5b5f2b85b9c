#!/bin/sh
# Renders the PNGs (and the Windows .ico) from the SVG sources beside this file.
# Needs rsvg-convert (librsvg2-bin) and convert (imagemagick).
set -eu
cd "$(dirname "$0")"

# ImageMagick 6 writes palettes where it can; Tauri takes RGBA only, so rsvg's own output stays.
app() { rsvg-convert --width "$1" --height "$1" hearth.svg --output "$2"; }
app 32 32x32.png
app 128 128x128.png
app 256 128x128@2x.png
app 512 icon.png

for state in ready working paused connecting offline; do
    rsvg-convert --width 64 --height 64 "tray-$state.svg" --output "tray-$state.png"
done

sizes=$(mktemp -d)
trap 'rm -rf "$sizes"' EXIT
for size in 16 24 32 48 64 256; do
    app "$size" "$sizes/$size.png"
done
convert "$sizes"/*.png icon.ico
