#!/bin/sh
# with-coverage.sh RUSTC ARGS…: cargo's rustc wrapper in fuzz.sh. Instruments only the project's own
# crates, so that libFuzzer sees their coverage; instrumenting all would be too slow.
case " $* " in *" build_script_build "*) exec "$@" ;; esac
exec "$@" -Cpasses=sancov-module -Ccodegen-units=1 \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
