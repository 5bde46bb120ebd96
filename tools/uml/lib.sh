# Words for work on md arrays inside user-mode Linux, sourced by every payload. One array at a time: `begin`
# attaches images as loop devices, `step VERB ...` does one thing to the array, `end` stops it and prints
#   verdict NAME LEVEL SECTORS DEGRADED MISMATCHES MD5 PROBLEM
# between tabs, `-` where there is nothing to say. After a problem the steps that remain are skipped.

modules() {
    export IMSM_NO_PLATFORM=1 IMSM_DEVNAME_AS_SERIAL=1 # mdadm makes Intel's format on any disk
    mkdir -p /run/lib
    ln -sfn /usr/lib/uml/modules /run/lib/modules # the host has no /lib/modules for this kernel
    local module
    for module in loop linear raid0 raid1 raid10 raid456; do modprobe -d /run $module || return; done
    echo 0 > /sys/module/md_mod/parameters/start_ro
    echo 4000000 | tee /proc/sys/dev/raid/speed_limit_min > /proc/sys/dev/raid/speed_limit_max
    mkfifo /run/never
}

# Starting a process is slow here: these two start none.
pause() { read -rt 0.02 <> /run/never || true; }
get() {
    local value=
    [ ! -e "$1" ] || read -r value < "$1"
    printf %s "$value"
}

# until_true TENTHS COMMAND...: whether COMMAND came true in time
until_true() {
    local ends=$((SECONDS + $1 / 10 + 1))
    shift
    until "$@"; do
        [ $SECONDS -lt $ends ] || return 1
        pause
    done
}

begin() { # NAME IMAGE|missing...
    name=$1 problem= sectors=- degraded=- mismatches=- md5=- level=- left_dirty= devices=() images=("${@:2}")
    number=$((${number:--1} + 1)) md=/dev/md$number sys=/sys/block/md$number/md
    local image
    for image in "${images[@]}"; do
        if [ "$image" = missing ]; then
            devices+=(missing)
        else
            devices+=("$(losetup --find --show "$image")") || problem="cannot attach $image"
        fi
    done
}

step() {
    [ -z "$problem" ] || return 0
    "$@" > /run/step 2>&1 || problem="$*: $(cat /run/step) $(dmesg | tail -n 4)"
    local uptime
    read -r uptime _ < /proc/uptime
    echo "$uptime $name: $*" && cat /run/step
}

end() {
    if [ -e $sys/level ]; then
        level=$(get $sys/level) sectors=$(get /sys/block/md$number/size) degraded=$(get $sys/degraded)
    fi
    if [ -z "$left_dirty" ]; then
        [ ! -e $sys ] || mdadm --stop $md 2> /run/step || problem=${problem:-$(cat /run/step)}
        local device
        for device in "${devices[@]}"; do [ $device = missing ] || losetup --detach $device; done
    fi
    printf 'verdict\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "${level:--}" $sectors "${degraded:-0}" $mismatches $md5 \
        "$(tr -s '\t\n' '  ' <<< "${problem:--}")"
}

create() { # --level=.. --raid-devices=.. ...
    local metadata=--metadata=1.2
    case " $* " in *" --metadata="*) metadata= ;; esac
    mdadm --create $md --run $metadata "$@" "${devices[@]}"
}

# As create; the last device is the write journal.
create_journalled() {
    mdadm --create $md --run --metadata=1.2 "$@" "${devices[@]::${#devices[@]}-1}" --write-journal "${devices[-1]}"
}

assemble() { # [--force] [--readonly] ...
    mdadm --assemble $md --run "$@" "${devices[@]}" || return
    case " $* " in
    *" --readonly "*) ;;
    *) mdadm --readwrite $md 2> /dev/null || true ;; # refused where it is already
    esac
}

# Nothing is being synchronised, and nothing is about to be: `sync_action` alone says idle for a moment
# before each start.
settled() {
    [ -e $sys/sync_action ] || return 0
    [ "$(get $sys/sync_action)" = idle ] && [ "$(get $sys/resync_start)" = none ] || return 1
    local member
    for member in $sys/dev-*; do
        [ "$(get $member/slot)" = none ] && continue
        case ",$(get $member/state)," in *spare* | *,want_replacement,*) return 1 ;; esac
    done
}
settle() { until_true 600 settled || { cat /proc/mdstat && false; }; }

reached() {
    local completed
    completed=$(get $sys/sync_completed)
    completed=${completed%% *}
    [[ $completed == [0-9]* ]] && [ "$completed" -ge "$1" ]
}
reaches() { until_true 600 reached "$1" || { cat /proc/mdstat $sys/sync_completed && false; }; }

fail() { mdadm $md --fail ${devices[$1]}; }
removed() { mdadm $md --remove ${devices[$1]}; }
remove() { until_true 50 removed "$1"; } # busy until its last request has come back
wipe() { mdadm --zero-superblock ${devices[$1]}; }
add() { mdadm $md --add ${devices[$1]}; }
re_add() { mdadm $md --re-add ${devices[$1]}; }
replace() { mdadm $md --replace ${devices[$1]} --with ${devices[$2]}; }

# A resync from the beginning goes as far as SECTORS and stays there.
resync_until() { # SECTORS
    mdadm --stop $md && echo 1 > /sys/module/md_mod/parameters/start_ro || return # keeps it waiting for the word
    mdadm --assemble $md --run --update=resync "${devices[@]}"
    local code=$?
    echo 0 > /sys/module/md_mod/parameters/start_ro
    [ $code = 0 ] && echo "$1" > $sys/sync_max && mdadm --readwrite $md && reaches "$1"
}

# The recovery that begins goes as far as SECTORS of the members and stays there.
add_until() { # MEMBER SECTORS
    echo "$2" > $sys/sync_max && add "$1" && reaches "$2"
}

# The replacement that begins goes as far as SECTORS of the members and stays there.
replace_until() { # MEMBER SPARE SECTORS
    echo "$3" > $sys/sync_max && replace "$1" "$2" && reaches "$3"
}

# A reshape to one member more begins, and is stopped on its way.
grow() { # DEVICES
    echo 100 | tee /proc/sys/dev/raid/speed_limit_min > /proc/sys/dev/raid/speed_limit_max
    mdadm --grow $md --raid-devices="$1"
    local code=$?
    mdadm --stop $md || code=1
    echo 4000000 | tee /proc/sys/dev/raid/speed_limit_min > /proc/sys/dev/raid/speed_limit_max
    return $code
}

# Sectors of a member, counted from its beginning, that cannot be read.
bad_block() { # MEMBER SECTOR COUNT
    echo "$2 $3" > $sys/dev-${devices[$1]##*/}/bad_blocks
    # It is put on record with the next update of the superblocks: a write brings one, if not at once then when md
    # marks the array clean.
    local last=$(($(get /sys/block/md$number/size) / 8 - 1))
    dd if=$md of=$md bs=4096 count=1 skip=$last seek=$last iflag=direct oflag=direct status=none
}

# The beginning of FILE, as much as fits, from MiB AT on.
fill() { # FILE [AT]
    local bytes=$(($(get /sys/block/md$number/size) * 512 - ${2:-0} * 1048576))
    head -c $bytes "$1" | dd of=$md bs=1M seek="${2:-0}" iflag=fullblock oflag=direct status=none
}

# From now on the array stays active and its bitmap bits stay set; `end` leaves it running for the power cut.
is_clean() { [ "$(get $sys/array_state)" = clean ]; }
stay_dirty() {
    left_dirty=yes
    until_true 50 is_clean || return # a timer set by earlier writes would fire in spite of what follows
    echo 0 > $sys/safe_mode_delay
    [ ! -e $sys/bitmap/time_base ] || echo 1000 > $sys/bitmap/time_base
}

check() {
    [ -e $sys/sync_action ] || return 0
    echo check > $sys/sync_action && settle && mismatches=$((${mismatches/-/0} + $(get $sys/mismatch_cnt)))
}

content() {
    md5=$(dd if=$md bs=1M iflag=direct status=none | md5sum) && md5=${md5%% *}
}

tree() { # FILE_SYSTEM: the MD5 of all its files' MD5s
    mkdir -p /run/tree
    modprobe "$1" 2> /dev/null || true # it may be built in
    mount -t "$1" -o ro $md /run/tree || return
    md5=$(cd /run/tree && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum | md5sum) && md5=${md5%% *}
    umount /run/tree
}
examine() { mdadm --examine "${devices[@]}"; }
