"""Applies chains of layer tars as OCI's specification of image layers has it, and lists what is left.

Each argument is a chain: tars with ":" between them, the lowest first. What is printed is a line for each
node, in the form of the tests' own listing, and "==" behind each chain.
"""

import sys
import tarfile


class Node:
    def __init__(self, member, content=b""):
        self.kind = member.type
        self.mode = member.mode
        self.owner = (member.uid, member.gid)
        self.time = int(member.mtime)
        self.content = content
        self.target = member.linkname
        self.xattrs = sorted(
            (key[len("SCHILY.xattr."):], value)
            for key, value in member.pax_headers.items()
            if key.startswith("SCHILY.xattr.")
        )
        self.children = {} if member.isdir() else None


def find(root, names):
    node = root
    for name in names:
        node = node.children[name]
    return node


def apply(root, path):
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        own = {tuple(member.name.split("/")) for member in members}
        # What a layer hides is below it: its own entries come after, whatever their order in the tar.
        for member in members:
            *folder, name = member.name.split("/")
            try:
                folder_node = find(root, folder)
            except (KeyError, TypeError):
                continue
            if folder_node.children is None:
                continue
            if name == ".wh..wh..opq":
                folder_node.children.clear()
            elif name.startswith(".wh."):
                folder_node.children.pop(name[len(".wh."):], None)
        for member in members:
            *folder, name = member.name.split("/")
            if name.startswith(".wh."):
                continue
            parent = find(root, folder)
            if member.islnk():
                parent.children[name] = find(root, member.linkname.split("/"))
                continue
            content = tar.extractfile(member).read() if member.isreg() else b""
            node = Node(member, content)
            there = parent.children.get(name)
            if member.isdir() and there is not None and there.children is not None:
                node.children = there.children
            parent.children[name] = node


def names_of(node, count):
    for child in node.children.values():
        count[id(child)] = count.get(id(child), 0) + 1
        if child.children is not None:
            names_of(child, count)


def show(node, path, count, first):
    for name in sorted(node.children):
        child = node.children[name]
        here = path + name
        line = here + ("/" if child.children is not None else "")
        if child.children is None and count[id(child)] > 1:
            if id(child) in first:
                print(f"{here} =={first[id(child)]}")
                continue
            first[id(child)] = here
            line += f" n{count[id(child)]}"
        if child.kind == tarfile.SYMTYPE:
            line += f" ->{child.target}"
        elif child.kind == tarfile.FIFOTYPE:
            line += " p"
        elif child.content:
            line += f" ={child.content.decode()}"
        if child.mode != (0o644 if child.children is None else 0o755):
            line += f" m{child.mode:o}"
        if child.owner != (0, 0):
            line += f" u{child.owner[0]}:{child.owner[1]}"
        if child.time:
            line += f" t{child.time}"
        for key, value in child.xattrs:
            line += f" {{{key}={value}}}"
        print(line)
        if child.children is not None:
            show(child, here + "/", count, first)


for chain in sys.argv[1:]:
    top = tarfile.TarInfo()
    top.type = tarfile.DIRTYPE
    root = Node(top)
    for layer in chain.split(":"):
        apply(root, layer)
    count = {}
    names_of(root, count)
    show(root, "", count, {})
    print("==")
