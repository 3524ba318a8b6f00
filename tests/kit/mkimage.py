#!/usr/bin/env python3
"""mkimage.py OUT.tar [options]: a one-layer docker-archive image made from files of this machine; no
registry, no daemon. Loads with `ctr images import` and `docker load`. /bin/busybox (Debian
busybox-static) and its applet links are in it, unless it is bare.
  --bare            nothing but what is asked for
  --name REF        a name:tag of the image; may be repeated
  --file SRC=DST    put file SRC at DST (mode kept)
  --with PROG       put PROG of this machine in /bin, with the shared libraries ldd names
  --libs PROG       put the shared libraries ldd names for PROG
  --link DST=TARGET symbolic link
  --dir DST         empty folder
  --user NAME:UID[:GROUP:GID]
  --entrypoint A,B  --cmd A,B   --env K=V"""
import argparse, hashlib, io, json, os, re, shutil, subprocess, sys, tarfile
p = argparse.ArgumentParser(); p.add_argument("out")
p.add_argument("--bare", action="store_true")
for o in ("name", "file", "with", "libs", "link", "dir", "user", "env"): p.add_argument("--" + o, action="append", default=[])
p.add_argument("--entrypoint", default="/bin/sleep"); p.add_argument("--cmd", default="2147483647")
a = p.parse_args()
entries = {}  # path -> (kind, payload, mode); parents are added by need
def put(path, kind, payload=None, mode=0o755):
    path = path.strip("/")
    if os.path.dirname(path): put_dir(os.path.dirname(path))
    entries[path] = (kind, payload, mode)
def put_dir(path):
    path = path.strip("/")
    if path and path not in entries:
        if os.path.dirname(path): put_dir(os.path.dirname(path))
        entries[path] = ("d", None, 0o1777 if path == "tmp" else 0o755)
def read(src):
    with open(src, "rb") as f: return f.read()
def put_libs(src):
    out = subprocess.run(["ldd", src], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout  # static: none
    for lib in re.findall(r"(/\S+) \(0x", out):
        put(lib, "f", read(os.path.realpath(lib)))  # at the path the loader looks for
for d in a.dir: put_dir(d)
if not a.bare:
    for d in ("bin", "etc", "proc", "sys", "tmp", "dev", "root", "home", "usr/bin", "usr/local/bin", "var"): put_dir(d)
    put("bin/busybox", "f", read("/bin/busybox"))
    for n in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
        if n != "busybox": put("bin/" + n, "l", "busybox")
for prog in getattr(a, "with"):
    src = os.path.realpath(shutil.which(prog) or sys.exit("mkimage.py: no program " + prog))
    put("bin/" + prog, "f", read(src)); put_libs(src)
for prog in a.libs: put_libs(prog)
for lib in ("/lib/x86_64-linux-gnu/libnss_files.so.2", "/lib/x86_64-linux-gnu/libnss_dns.so.2"):
    if getattr(a, "with") and os.path.exists(lib): put(lib, "f", read(lib))
for f in a.file:
    src, dst = f.split("=", 1); put(dst, "f", read(src), os.stat(src).st_mode & 0o777)
for f in a.link:
    dst, t = f.split("=", 1); put(dst, "l", t)
passwd, group = "root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\n"
for u in a.user:
    n, uid, *g = u.split(":"); passwd += f"{n}:x:{uid}:{uid}::/home/{n}:/bin/sh\n"; group += f"{n}:x:{uid}:\n"
    if g: group += f"{g[0]}:x:{g[1]}:{n}\n"
if not a.bare:
    put("etc/passwd", "f", passwd.encode(), 0o644); put("etc/group", "f", group.encode(), 0o644)
    put("etc/nsswitch.conf", "f", b"passwd: files\ngroup: files\nhosts: files dns\n", 0o644)
def add(t, name, kind, payload, mode):
    i = tarfile.TarInfo(name); i.mode, i.mtime = mode, 0
    if kind == "l": i.type, i.linkname = tarfile.SYMTYPE, payload; t.addfile(i)
    elif kind == "d": i.type = tarfile.DIRTYPE; t.addfile(i)
    else: i.size = len(payload); t.addfile(i, io.BytesIO(payload))
buf = io.BytesIO()
with tarfile.open(fileobj=buf, mode="w", format=tarfile.GNU_FORMAT) as t:
    for path in sorted(entries): add(t, path, *entries[path])
layer = buf.getvalue(); dig = hashlib.sha256(layer).hexdigest()
cfg = json.dumps({"architecture": "amd64", "os": "linux",
  "config": {"Entrypoint": [x for x in a.entrypoint.split(",") if x], "Cmd": [x for x in a.cmd.split(",") if x],
             "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *a.env]},
  "rootfs": {"type": "layers", "diff_ids": ["sha256:" + dig]}, "history": [{}]}).encode()
cid = hashlib.sha256(cfg).hexdigest()
man = json.dumps([{"Config": cid + ".json", "RepoTags": a.name, "Layers": [dig + "/layer.tar"]}]).encode()
with tarfile.open(a.out, "w", format=tarfile.GNU_FORMAT) as t:
    add(t, cid + ".json", "f", cfg, 0o644); add(t, dig, "d", None, 0o755)
    add(t, dig + "/layer.tar", "f", layer, 0o644); add(t, "manifest.json", "f", man, 0o644)
