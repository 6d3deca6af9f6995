# shellcheck shell=bash
# Sourced: an exit status of 0 alone is not believed.

# LINE COMMAND...: run it and show what it says; it has succeeded only when it ends with 0 and its last line begins with LINE.
proven() {
    local line=$1 said status=0
    shift
    said=$("$@") || status=$?
    printf '%s\n' "$said"
    if [ "$status" = 0 ] && [[ ${said##*$'\n'} != "$line"* ]]; then
        echo "'$1 $2' ended with 0 and did not say '$line', so nothing is proven" >&2
        status=75
    fi
    return "$status"
}
