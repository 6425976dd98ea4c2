"""The inside of :mod:`studio.sandbox`: shuts every door behind itself, then runs the code it was given.

Started as a script by an interpreter that knows nothing of the studio; only the standard library is imported. The
doors are the kernel's own, so code that finds a way around Python finds them shut too:

* rlimits: processor time, address space, size of a file, open files, no core dumps;
* Landlock (https://docs.kernel.org/userspace-api/landlock.html): files can be read below the interpreter only, and
  written below the working folder only;
* seccomp (https://docs.kernel.org/userspace-api/seccomp_filter.html): no sockets, no new processes or programs, no
  signals to anybody, no debugging of others, no mounts, no change of modes, owners and limits.
"""

import ctypes
import json
import math
import os
import platform
import resource
import sys

# System call numbers: https://github.com/torvalds/linux, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/
# asm-generic/unistd.h. Those from 424 on are the same everywhere.
_SHARED = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "memfd_secret": 447, "fchmodat2": 452,
    "setxattrat": 463, "removexattrat": 466, "open_tree_attr": 467, "file_setattr": 469,
}
_X86_64 = {
    "shmget": 29, "socket": 41, "connect": 42, "accept": 43, "bind": 49, "listen": 50, "fork": 57, "vfork": 58,
    "execve": 59, "kill": 62, "semget": 64, "msgget": 68, "truncate": 76, "chmod": 90, "fchmod": 91, "chown": 92,
    "fchown": 93, "lchown": 94, "ptrace": 101, "syslog": 103, "setpgid": 109, "setsid": 112, "rt_sigqueueinfo": 129,
    "utime": 132, "personality": 135, "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144,
    "pivot_root": 155, "adjtimex": 159, "setrlimit": 160, "chroot": 161, "acct": 163, "settimeofday": 164,
    "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170,
    "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
    "tkill": 200, "sched_setaffinity": 203, "clock_settime": 227, "tgkill": 234, "utimes": 235, "mq_open": 240,
    "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "ioprio_set": 251, "fchownat": 260,
    "futimesat": 261, "fchmodat": 268, "unshare": 272, "utimensat": 280, "accept4": 288, "rt_tgsigqueueinfo": 297,
    "perf_event_open": 298, "fanotify_init": 300, "prlimit64": 302, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "finit_module": 313, "sched_setattr": 314, "memfd_create": 319, "kexec_file_load": 320, "bpf": 321,
    "execveat": 322, "userfaultfd": 323,
}
_AARCH64 = {
    "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16,
    "ioprio_set": 30, "umount2": 39, "mount": 40, "pivot_root": 41, "truncate": 45, "chroot": 51, "fchmod": 52,
    "fchmodat": 53, "fchownat": 54, "fchown": 55, "quotactl": 60, "utimensat": 88, "acct": 89, "personality": 92,
    "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116,
    "ptrace": 117, "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "kill": 129,
    "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "setpriority": 140, "reboot": 142, "setpgid": 154,
    "setsid": 157, "sethostname": 161, "setdomainname": 162, "setrlimit": 164, "settimeofday": 170, "adjtimex": 171,
    "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "socket": 198, "bind": 200, "listen": 201,
    "accept": 202, "connect": 203, "add_key": 217, "request_key": 218, "keyctl": 219, "execve": 221, "swapon": 224,
    "swapoff": 225, "rt_tgsigqueueinfo": 240, "perf_event_open": 241, "accept4": 242, "prlimit64": 261,
    "fanotify_init": 262, "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "sched_setattr": 274,
    "memfd_create": 279, "bpf": 280, "execveat": 281, "userfaultfd": 282, "kexec_file_load": 294,
}
# machine -> (AUDIT_ARCH of the kernel's headers, number of clone, forbidden calls)
_MACHINES = {"x86_64": (0xC000003E, 56, _X86_64 | _SHARED), "aarch64": (0xC00000B7, 220, _AARCH64 | _SHARED)}
_CLONE3, _CLONE_THREAD = 435, 0x00010000
_ALLOW, _KILL, _NO, _UNKNOWN = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38  # errno EPERM, ENOSYS
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute (libraries), read files, list folders


class _Line(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.POINTER(_Line))]


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version():
    """Version of Landlock that the kernel offers; 0 or less where it offers none."""
    return _libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1))


def _must(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def limit(seconds, memory, file_size):
    """rlimits. RLIMIT_NPROC is not among them: it counts all of a user's processes, and seccomp forbids new ones.
    Without ``seconds`` the studio looks at the clock itself."""
    if seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 1))
    for what, value in ((resource.RLIMIT_FSIZE, file_size), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
                        (resource.RLIMIT_AS, memory)):
        resource.setrlimit(what, (value, value))


def confine_files(readable, writable):
    """Landlock: nothing but these folders and files, from here on and for good."""
    version = _must(landlock_version(), "Landlock")
    everything = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    rules = _Ruleset(everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _must(_libc.syscall(444, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0)), "Landlock")
    for paths, allowed in ((readable, _READ), (writable, everything)):
        for path in paths:
            try:
                parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            file_only = allowed if os.path.isdir(path) else allowed & (1 << 0 | 1 << 1 | 1 << 2 | 1 << 14)
            rule = _Beneath(file_only, parent)
            _must(_libc.syscall(445, ruleset, 1, ctypes.byref(rule), ctypes.c_uint32(0)), f"Landlock, {path}")
            os.close(parent)
    _must(_libc.syscall(446, ruleset, ctypes.c_uint32(0)), "Landlock")
    os.close(ruleset)


def forbid_calls():
    """seccomp: the calls of the table fail with EPERM, a clone that is no thread too; another ABI ends the process."""
    arch, clone, forbidden = _MACHINES[platform.machine()]
    load, equal, at_least, has, end = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF operations; their jumps are relative
    n = len(forbidden)
    lines = [(load, 0, 0, 4), (equal, 1, 0, arch), (end, 0, 0, _KILL), (load, 0, 0, 0),
             (at_least, n + 4, 0, 0x40000000)]  # the x32 calls: the same work under other numbers
    lines += [(equal, n + 3 - i, 0, number) for i, number in enumerate(sorted(forbidden.values()))]
    lines += [(equal, 4, 0, _CLONE3), (equal, 0, 4, clone), (load, 0, 0, 16), (has, 2, 0, _CLONE_THREAD),
              (end, 0, 0, _NO), (end, 0, 0, _UNKNOWN), (end, 0, 0, _ALLOW)]
    block = (_Line * len(lines))(*(_Line(*line) for line in lines))
    program = _Program(len(lines), ctypes.cast(block, ctypes.POINTER(_Line)))
    _must(_libc.prctl(22, 2, ctypes.byref(program), 0, 0), "seccomp")


def shut(task):
    """All of it, in the order in which one door does not need another."""
    _must(_libc.prctl(1, 9, 0, 0, 0), "prctl")  # die with the studio
    _must(_libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _must(_libc.capset(header, nothing), "capabilities")  # root is nobody special in here
    libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache",
                 "/etc/localtime", "/dev/urandom", "/dev/null", "/dev/zero"]
    prefixes = {sys.base_prefix, sys.base_exec_prefix} | ({sys.prefix} if task["packages"] else set())
    inner = [os.path.join(prefix, "lib") for prefix in prefixes]
    confine_files(libraries + inner, [os.getcwd(), "/dev/null"])
    limit(task["seconds"], task["memory"], task["file_size"])
    forbid_calls()


def told(err, name, source):
    """One line on a failure: its kind, its message, and the line of the tests that it came from."""
    import traceback

    said = f"{type(err).__name__}: {err}".rstrip(": ")
    lines = source.splitlines()
    for frame in reversed(traceback.extract_tb(err.__traceback__)):
        if frame.filename == name and frame.lineno and frame.lineno <= len(lines):
            return f"{said} (line {frame.lineno}: {lines[frame.lineno - 1].strip()})"
    return said


def run_tests(source, name, space):
    """Run one text of tests: its own statements, then the functions test_* and the test cases it defines."""
    before = dict(space)
    exec(compile(source, name, "exec"), space)
    for key, thing in [(key, thing) for key, thing in space.items() if thing is not before.get(key)]:
        if isinstance(thing, type) and hasattr(thing, "assertEqual"):
            import io
            import unittest

            cases = unittest.defaultTestLoader.loadTestsFromTestCase(thing)
            said = unittest.TextTestRunner(stream=io.StringIO()).run(cases)
            if not said.wasSuccessful():
                case, trace = (said.failures + said.errors)[0] if said.failures + said.errors else (key, "unexpected "
                                                                                                         "success")
                raise AssertionError(f"{case}: {trace.strip().splitlines()[-1]}")
        elif key.startswith("test") and callable(thing):
            thing()


def work(task):
    """Run the code and then each text of tests; plain values for the parent."""
    tests = task["tests"]
    space = {"__name__": "solution" if tests else "__main__"}
    try:
        exec(compile(task["code"], "answer.py", "exec"), space)
    except MemoryError:
        return {"code": "memory", "reason": "MemoryError"}
    except SystemExit as err:
        if tests or err.code not in (None, 0):
            return {"code": "exit", "reason": f"the code ended itself ({err.code})"}
    except SyntaxError as err:
        return {"code": "syntax", "reason": f"{type(err).__name__}: {err}"}
    except BaseException as err:
        return {"code": "error", "reason": told(err, "answer.py", task["code"])}
    passed, reason, code = 0, "", "failed"
    for number, source in enumerate(tests, 1):
        try:
            run_tests(source, f"tests-{number}.py", space)
            passed += 1
        except MemoryError:
            reason, code = reason or "MemoryError", "memory"
        except BaseException as err:
            reason = reason or told(err, f"tests-{number}.py", source)
    return {"code": "passed" if passed == len(tests) else code, "reason": reason, "passed": passed}


def serve(task, calls, tell, loads, flush):
    """Run the code once, then its function for each line of ``calls``: the keyword arguments as JSON."""
    space = {"__name__": "own_code"}
    try:
        exec(compile(task["code"], "own_code.py", "exec"), space)
        function = space[task["function"]]
    except MemoryError:
        return {"code": "memory", "reason": "MemoryError"}
    except SyntaxError as err:
        return {"code": "syntax", "reason": f"{type(err).__name__}: {err}"}
    except BaseException as err:
        return {"code": "error", "reason": told(err, "own_code.py", task["code"])}
    tell({"code": "ready"})
    for line in calls:
        try:
            value = function(**loads(line))
            parts = value if isinstance(value, tuple) else (value,)
            made = {"code": "passed", "value": [part if part is None or isinstance(part, (bool, int, float, str))
                                                else float(part) for part in parts[:2]]}
        except MemoryError:
            made = {"code": "memory", "reason": "MemoryError"}
        except BaseException as err:
            made = {"code": "error", "reason": told(err, "own_code.py", task["code"])[:2000]}
        flush()
        tell(made)
    return {"code": "exit", "reason": ""}


def main():
    task = json.loads(sys.stdin.buffer.readline())
    results, token = task["results"], task.pop("token").encode()
    calls = os.fdopen(os.dup(0), "rb") if task.get("function") else None
    # Bound now: the code to come may put other functions in their place.
    write, leave, dumps, loads = os.write, os._exit, json.dumps, json.loads
    flushes = sys.stdout.flush, sys.stderr.flush

    def tell(made):
        write(results, token + dumps(made)[:60_000].encode() + b"\n")

    def flush():
        for each in flushes:
            try:
                each()
            except Exception:
                continue

    with open("stdin", "w+b") as given:  # what the code reads is a file without a name
        os.unlink("stdin")
        given.write(task["stdin"].encode("utf-8", "replace"))
        given.seek(0)
        os.dup2(given.fileno(), 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.argv = ["answer.py"]
    sys.setrecursionlimit(3000)
    try:
        shut(task)
    except OSError as err:
        tell({"code": "refused", "reason": str(err)})
        leave(1)
    tell({})
    made = work(task) if calls is None else serve(task, calls, tell, loads, flush)
    flush()
    tell(made)
    leave(0)


if __name__ == "__main__":
    main()
