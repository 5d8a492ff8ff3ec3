#!/usr/bin/env bash
# Build the site from executed notebooks: tools/site.sh FOLDER_WITH_NOTEBOOKS SITE
# Always from scratch, because a second build would not repeat the warnings of the first; they count as errors.
set -euo pipefail
notebooks=$1
site=$2

work=$(dirname "$site")/$(basename "$site").work
rm -rf "$work"
mkdir -p "$work/source/notebooks"
cp -r _config.yml _toc.yml LICENSE-text.md CONTRIBUTING.md CHANGELOG.md book "$work/source"
cp -r book/_static "$work/source/_static"
cp "$notebooks"/[0-9]*.ipynb "$work/source/notebooks"

jupyter-book build "$work/source" --path-output "$work" -q -W --keep-going > "$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
# Of MathJax only what the pages load, and no maps for debugging style sheets and scripts: half of the site's size.
# Two files of the theme are templates, not pages.
(cd "$work/_build/html/_static" && find . -name '*.map' -delete && rm -f webpack-macros.html sbt-webpack-macros.html &&
    rm -rf mathjax/{mml-*,tex-svg*,tex-mml-*,tex-chtml-full*,node-main.js,adaptors,output/svg})
# Thebe is off, yet its settings are written, twice, which is an error in the browser, and name a host to load it from.
# Citations are items of their list: the role that docutils gives them is not one that a list may hold.
find "$work/_build/html" -name '*.html' -exec sed -i -e '/const THEBE_JS_URL/d' -e '/sphinx-thebe\.js/d' \
    -e 's/ role="doc-biblioentry"/ role="listitem"/' {} +
touch "$work/_build/html/done"
rm -rf "$site"
mv "$work/_build/html" "$site"
rm -rf "$work"
