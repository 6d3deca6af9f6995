# shellcheck shell=bash
# Sourced: a bundle is sealed by a signature of its SHA256SUMS, which stands beside it in <bundle>.sig.
# GATEBOOK_SEAL_KEY is an ed25519 key in PEM (openssl genpkey -algorithm ed25519), as text or as the path of a file.

# ARGUMENTS of the script: take the key out of the environment, so that what is asked and judged here never sees it; begin again
# without it, since /proc shows what a process began with. One line says so where there is no key.
take_seal_key() {
    if [ -n "${GATEBOOK_SEAL_KEY:-}" ]; then
        exec 9<<<"$GATEBOOK_SEAL_KEY"
        SEAL_KEY_ON=9 exec env -u GATEBOOK_SEAL_KEY bash "deploy/${0##*/}" "$@"
    fi
    seal_key=
    if [ "${SEAL_KEY_ON:-}" = 9 ]; then
        seal_key=$(cat <&9)
        exec 9<&-
        unset SEAL_KEY_ON
    fi
    [ -n "$seal_key" ] || echo "no GATEBOOK_SEAL_KEY: bundles are not sealed, and an edited answer cannot be told from a given one (docs/audit.md)" >&2
}

signing() {
    if [ -f "$seal_key" ]; then
        openssl pkeyutl -rawin -inkey "$seal_key" "$@"
    else
        openssl pkeyutl -rawin -inkey <(printf '%s\n' "$seal_key") "$@"
    fi
}

# FOLDER: seal a finished bundle.
seal() {
    rm -f "$1.sig"
    if [ -z "$seal_key" ] || [ ! -f "$1/SHA256SUMS" ]; then return 0; fi
    signing -sign -in "$1/SHA256SUMS" -out "$1.sig" || {
        echo "$1: cannot be sealed; GATEBOOK_SEAL_KEY must be an ed25519 key in PEM" >&2
        return 75
    }
    echo "sealed $1.sig"
}

# FOLDER SIGNATURE: where there is a key, demand its seal.
demand_seal() {
    [ -n "$seal_key" ] || return 0
    signing -verify -in "$1/SHA256SUMS" -sigfile "$2" >/dev/null || {
        echo "$1: has no seal of this key ($2): not the evidence that a gate has left" >&2
        return 75
    }
}
