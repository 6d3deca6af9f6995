# shellcheck shell=bash
# Sourced: how the image is served, alike under test and on staging.

# NAME ADDRESS:PORT IMAGE [options of docker run]: start the server; it is not ready yet.
# The key of OPENAI_API_KEY, where it is set, is the one that the server asks for; it goes through the environment, never an argument.
serve() {
    local name=$1 address=$2 image=$3
    shift 3
    VLLM_API_KEY=${OPENAI_API_KEY:-} docker run --detach --name "$name" --gpus "${GPUS:-device=0}" --publish "$address:8000" \
        --shm-size 2g --security-opt no-new-privileges ${OPENAI_API_KEY:+--env VLLM_API_KEY} "$@" "$image" >/dev/null
}

# NAME: whether such a container exists, running or not.
exists() { docker container inspect "$1" >/dev/null 2>&1; }

# NAME: remove it, whatever it does.
remove() { docker rm --force "$1" >/dev/null 2>&1 || true; }

# NAME FILE: keep what the server said, without the keys that are known here.
keep_log() {
    mkdir -p "$(dirname "$2")"
    { docker logs "$1" 2>&1 || true; } | python -m gatebook.config.secrets >"$2" || {
        rm -f "$2"
        echo "the log of $1 was not kept, as keys cannot be taken out of it" >&2
    }
}

# Log in to GitLab's registry for as long as this script runs, leaving nothing on the runner. Elsewhere the machine's own login counts.
log_in() {
    [ -n "${CI_REGISTRY_PASSWORD:-}" ] || return 0
    DOCKER_CONFIG=$(mktemp -d)
    export DOCKER_CONFIG
    printf '%s' "$CI_REGISTRY_PASSWORD" | docker login --username "$CI_REGISTRY_USER" --password-stdin "$CI_REGISTRY" >/dev/null
}

log_out() { [ -z "${CI_REGISTRY_PASSWORD:-}" ] || rm -rf "${DOCKER_CONFIG:-}"; }
