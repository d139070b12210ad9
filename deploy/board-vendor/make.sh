#!/bin/sh
# Make gateway/api/board/vendor/ui.js (preact, htm, signals in one file) and its licences anew.
#
# For maintainers, when a version in package.json changes: run it, look at the board, commit what it wrote. Nobody
# needs Node to install or run Guardwatch: the results are committed, with their SHA-256 in vendor/SHA256SUMS, which a
# test compares. No lock file is kept: it would hold download addresses; package.json pins every direct dependency.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out="$here/../../gateway/api/board/vendor"
axe="$here/../../tests/browser/vendor"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/package.json" "$here/ui.entry.js" "$work/"
cd "$work"
npm install --no-package-lock --no-audit --no-fund --loglevel=error
npx esbuild ui.entry.js --bundle --format=esm --minify --target=chrome80,safari14 --legal-comments=none --outfile=ui.js
mkdir -p "$out" "$axe"
cp ui.js "$out/ui.js"
for package in preact htm @preact/signals @preact/signals-core; do
  printf '== %s %s ==\n\n' "$package" "$(node -p "require('./node_modules/$package/package.json').version")"
  cat "node_modules/$package/LICENSE"
  printf '\n'
done > "$out/LICENSES.txt"
(cd "$out" && sha256sum ui.js LICENSES.txt > SHA256SUMS)
cp node_modules/axe-core/axe.min.js "$axe/axe.min.js"
cp node_modules/axe-core/LICENSE "$axe/axe.LICENSE.txt"
(cd "$axe" && sha256sum axe.min.js > SHA256SUMS)
