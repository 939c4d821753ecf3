# What up and down share. The folder of the cluster is their first argument.

say() { echo "cluster: $*" >&2; }

# A dead daemon may stay as a zombie where process 1 does not reap, so `kill -0` alone would call it alive.
running() { [[ -r /proc/$1/stat ]] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status"; }
alive() { local file=$folder/run/$1.pid; [[ -s $file ]] && running "$(cat "$file")"; }

wait_for() { # SECONDS COMMAND...: until the command succeeds
    local tries=$(($1 * 10)) command=("${@:2}")
    for ((try = 0; try < tries; try++)); do
        if "${command[@]}" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    say "gave up after $1 s: ${command[*]}"
    return 1
}

folder=${1:?"usage: $(basename "$0") FOLDER"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
export SLURM_CONF=$folder/slurm.conf
