#!/usr/bin/env bash
# `make test`: every test, then what was skipped and how many passed. The counts are the sums of cargo's
# own `test result:` lines; the exit code is cargo's. Arguments go to `cargo test`.
set -uo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

output=$(mktemp)
beside=$(mktemp)
search=
trap '[ -z "$search" ] || kill -- "-$search" 2>/dev/null; rm -f "$output" "$beside"' EXIT
target=$("$cargo" metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

# The harness appends a line to this file for every test that lacks its runtime.
skipped() { find "$target" -maxdepth 3 -path '*/tmp/skipped' -type f "$@" 2>/dev/null; }
skipped -delete

# Whether all went well is the first of cargo's exit codes that is not 0.
status=0
run() {
	"$cargo" test --locked --no-fail-fast "$@" 2>&1 | tee -a "$output"
	local code=${PIPESTATUS[0]}
	[ "$status" != 0 ] || status=$code
}

if [ $# -gt 0 ]; then
	run "$@"
else
	# The searches compute for minutes and look at no clock; the others mostly wait for processes. Side by side they
	# take little more than half of the time, and the searches give way.
	searches='model simulation'
	others=$(basename -s .rs tests/*.rs | grep -vxF -- "${searches// /$'\n'}")
	"$cargo" test --locked --no-run || exit
	# A group of its own, which ends with this script.
	set -m
	nice -n 19 "$cargo" test --locked --no-fail-fast $(printf -- '--test %s ' $searches) </dev/null >"$beside" 2>&1 &
	search=$!
	set +m
	# Most of a test's time is waiting for processes: half as many again as there are cores.
	RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 3 / 2))} run --lib --bins $(printf -- '--test %s ' $others)
	run --doc
	wait "$search"
	code=$?
	search=
	[ "$status" != 0 ] || status=$code
	tee -a "$output" <"$beside"
fi

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
