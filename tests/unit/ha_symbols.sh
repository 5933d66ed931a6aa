#!/bin/sh
# The pure core asks nothing of the world: every symbol that it needs from outside is on this list.
# usage: ha_symbols.sh NM libdra_ha.a
set -eu
nm=$1 lib=$2
all=$("$nm" "$lib" | awk 'NF == 2 && $1 == "U" {print $2}' | sort -u)
own=$("$nm" "$lib" | awk 'NF == 3 && $2 ~ /^[A-Z]$/ {print $3}' | sort -u)
allowed='^(mem(cpy|set|cmp|move)|str(cmp|len|ncmp|chr)|dra_[a-z0-9_]+|ha_[a-z0-9_]+|__assert_fail|__stack_chk_fail|__(mem(cpy|set|move)|str(cpy|cat|ncpy))_chk|_GLOBAL_OFFSET_TABLE_)$'
bad=$(printf '%s\n' "$all" | grep -Fxv -e "$own" | grep -Ev "$allowed" || true)
if [ -n "$bad" ]; then
    echo "agent/ha needs what a pure core must not have:"
    printf '%s\n' "$bad"
    exit 1
fi
echo "$(printf '%s\n' "$all" | wc -l) symbols, all allowed"
