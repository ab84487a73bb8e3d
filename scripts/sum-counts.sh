#!/usr/bin/env bash
# Adds up the lines `N passed, N failed, N skipped` of the files and prints one such line.
awk '/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { passed += $1; failed += $3; skipped += $5 }
  END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$@"
