# Words for work on the device mapper's multipath target inside user-mode Linux, sourced after lib.sh. A map, `mp`, stands
# over paths that are targets of their own over one loop device.

dm_modules() {
    mkdir -p /run/lib
    ln -sfn /usr/lib/uml/modules /run/lib/modules # the host has no /lib/modules for this kernel
    local module
    for module in loop dm-mod dm-multipath dm-round-robin dm-queue-length dm-service-time dm-delay; do
        modprobe -d /run $module || return
    done
    mkfifo /run/never
    head -c 4M /dev/zero > /run/unit
    unit=$(losetup --find --show /run/unit)
}

create() { # NAME TABLE
    dmsetup create "$1" --noudevsync --table "$2" && dmsetup mknodes > /dev/null
}

number_of() { printf dm-%s "$(dmsetup info --columns --noheadings --options minor "$1")"; }

# A map over so many paths: `linear`, `slow` (answers after twenty seconds, when all has been sent on the slowest machine), or `error`.
table() { # SELECTOR PATH...
    local selector=$1 path list='' target
    shift
    paths=() started=0
    for path in "$@"; do
        case $path in
            slow) target="delay $unit 0 20000" ;;
            linear) target="linear $unit 0" ;;
            error) target=error ;;
        esac
        create path${#paths[@]} "0 8192 $target" || return
        list+=" /dev/mapper/path${#paths[@]} 1"
        paths+=(path${#paths[@]})
    done
    # Requests of whole blocks go to a target over plain bios only in this mode.
    create mp "0 8192 multipath 2 queue_mode bio 0 1 1 $selector 0 ${#paths[@]} 1$list" || return
    map=/sys/block/$(number_of mp)
    : > /run/errors
}

# Whether the map has seen as many reads as were begun: it counts them when they begin.
all_are_in() {
    local begun rest
    read -r begun rest < "$map/stat"
    [ "$begun" -ge $started ]
}

begin_read() { # KIB
    { dd if=/dev/mapper/mp of=/dev/null bs="$1K" count=1 iflag=direct status=none 2> /dev/null || echo >> /run/errors; } &
    started=$((started + 1))
    until_true 60 all_are_in || true # one that waits for a path may not be counted
}

message() { dmsetup message mp 0 "$@"; }

fail() { message fail_path "/dev/mapper/path$1"; }
reinstate() { message reinstate_path "/dev/mapper/path$1"; }

# counted CASE READS,... STATES ERRORS; then the map is gone.
end_table() { # CASE
    wait
    local reads='' rest path count status states='' word last='' errors=0
    for path in "${paths[@]}"; do
        read -r count rest < "/sys/block/$(number_of "$path")/stat"
        reads+=",$count"
    done
    status=$(dmsetup status mp)
    for word in $status; do
        case $last in *:*) states+=$word ;; esac
        last=$word
    done
    while read -r; do errors=$((errors + 1)); done < /run/errors
    echo "counted $1 ${reads#,} $states $errors"
    dmsetup remove mp --noudevsync
    for path in "${paths[@]}"; do dmsetup remove "$path" --noudevsync; done
}
