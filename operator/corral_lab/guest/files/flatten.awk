# Flattens the small part of YAML that a NoCloud seed uses into `path=value` lines: `ethernets.nic0.addresses.0=10.0.0.5/32`.
#
# Accepted: block mappings and block lists nested by spaces (a list may stand at its key's own indent), plain and quoted
# scalars on one line (escapes stay as they are), flow lists of scalars (`[a, b]`), comments on their own line. Not
# accepted, and not written by our seeds: anchors, tags, flow mappings, scalars over several lines, tabs.

function unquote(text) {
    gsub(/^[ ]+|[ ]+$/, "", text)
    if (text ~ /^".*"$/ || text ~ /^'.*'$/) text = substr(text, 2, length(text) - 2)
    return text
}

# Leaves every level at or beyond `indent`, so that a key replaces its predecessor and what was below it.
function leave(indent) {
    while (depth > 0 && indents[depth] >= indent) depth--
}

function enter(indent, name, is_list) {
    depth++
    indents[depth] = indent
    names[depth] = name
    lists[depth] = is_list
}

function path(    text, level) {
    for (level = 1; level <= depth; level++) text = text (level > 1 ? "." : "") names[level]
    return text
}

function scalar(text,    parts, count, i) {
    if (text !~ /^\[.*\]$/) { print path() "=" unquote(text); return }
    count = split(substr(text, 2, length(text) - 2), parts, ",")
    for (i = 1; i <= count; i++) print path() "." (i - 1) "=" unquote(parts[i])
}

/^[ ]*(#|$)/ || /^---/ { next }

{
    text = $0
    sub(/[ \r]+$/, "", text)
    match(text, /^[ ]*/)
    indent = RLENGTH
    text = substr(text, indent + 1)

    while (text ~ /^-( |$)/) {
        index_of_item = 0
        # The item before this one, at the same indent of the same list, tells this one's number. A key at that indent
        # is no item: it is what holds the list.
        while (depth > 0 && indents[depth] > indent) depth--
        if (depth > 0 && indents[depth] == indent && lists[depth]) { index_of_item = names[depth] + 1; depth-- }
        enter(indent, index_of_item, 1)
        match(text, /^-[ ]*/)
        indent += RLENGTH
        text = substr(text, RLENGTH + 1)
    }
    if (text == "") next

    # A key ends at the first colon that a space or the line's end follows: `fe80::1` is a scalar.
    if (match(text, /^("[^"]*"|'[^']*'|[^ "'\[][^ ]*):( |$)/)) {
        key = substr(text, 1, RLENGTH)
        sub(/:[ ]*$/, "", key)
        value = substr(text, RLENGTH + 1)
        leave(indent)
        enter(indent, unquote(key), 0)
        sub(/^[ ]+/, "", value)
        if (value != "") scalar(value)
    } else {
        scalar(text)
    }
}
