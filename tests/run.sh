#!/usr/bin/env bash
# `make test`: every test, then what was skipped and how many passed. The counts are the sums of cargo's
# own `test result:` lines; the exit code is cargo's. Arguments go to `cargo test`.
set -uo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

output=$(mktemp)
trap 'rm -f "$output"' EXIT
target=$("$cargo" metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

# The harness appends a line to this file for every test that lacks its runtime.
skipped() { find "$target" -maxdepth 3 -path '*/tmp/skipped' -type f "$@" 2>/dev/null; }
skipped -delete

"$cargo" test --locked --no-fail-fast "$@" 2>&1 | tee "$output"
status=${PIPESTATUS[0]}

echo
list=$(skipped -exec cat {} +)
if [ -n "$list" ]; then
	echo "skipped here (CI allows none):"
	sort -u <<<"$list" | sed 's/^/  /'
fi
# Only lines that cargo's harness itself begins: a program under test may print anything else.
awk '/^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1)
       if ($i ~ /^failed/) f += $(i-1); if ($i ~ /^ignored/) g += $(i-1) } }
     END { printf "tests: %d passed, %d failed, %d ignored\n", p, f, g }' "$output"
exit "$status"
