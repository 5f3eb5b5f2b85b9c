#!/bin/sh
# with-coverage.sh RUSTC ARGS…: what fuzz.sh has cargo call for the project's own crates, so that
# libFuzzer sees what they reach. Counting in everybody's would cost more than it shows.
case " $* " in *" build_script_build "*) exec "$@" ;; esac
exec "$@" -Cpasses=sancov-module -Ccodegen-units=1 \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
