/* enter PID UID GID FOLDER [hide=PATH | restrict=PATH]... -- PROGRAM ARGV0 [ARGUMENT]...
 *
 * Runs PROGRAM inside the namespaces of process PID as user UID, without any capability: a user
 * namespace of its own maps that id, and `exec` as another user than 0 drops what it had.
 *   hide=PATH      PATH is a folder that this process may not look into
 *   restrict=PATH  PATH can be read and mapped, but neither written nor executed
 * Ends with the program's exit code, or by the signal that ended it.
 */
#define _GNU_SOURCE
#include "common.h"

#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* A folder without any permission, which the mount plan makes. */
static const char *nothing = "/mnt/nothing";

static void shape(const char *rule) {
  const char *path = strchr(rule, '=') + 1;
  if (!strncmp(rule, "hide=", 5)) {
    if (mount(nothing, path, NULL, MS_BIND, NULL)) fail("hide", path);
    return;
  }
  if (mount(path, path, NULL, MS_BIND, NULL)) fail("restrict", path);
  unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOEXEC | MS_NOSUID | MS_NODEV;
  if (mount("none", path, NULL, flags | MS_RELATIME, NULL) && mount("none", path, NULL, flags, NULL))
    fail("restrict", path);
}

int main(int argc, char **argv) {
  int first = 5;
  while (first < argc && strcmp(argv[first], "--")) first++;
  if (first + 2 >= argc) return 125;
  pid_t holder = atoi(argv[1]);
  int handle = (int)syscall(SYS_pidfd_open, holder, 0);
  int spaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
               CLONE_NEWUTS;
  if (handle < 0 || setns(handle, spaces)) fail("enter", "the phone's namespaces");
  close(handle);
  /* A session's leader takes its terminal; without one this fails, and that is right. */
  if (isatty(0)) ioctl(0, TIOCSCTTY, 0);
  pid_t child = fork();
  if (child < 0) fail("fork", "");
  if (child == 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) fail("unshare", "");
    map_ids((unsigned)atoi(argv[2]), 0, (unsigned)atoi(argv[3]), 0);
    for (int i = 5; i < first; i++) shape(argv[i]);
    umask(0);
    if (chdir(argv[4])) fail("chdir", argv[4]);
    /* A crash leaves no core file on the host: 1 byte also stops handlers that are pipes. */
    struct rlimit no_core = {1, 1};
    setrlimit(RLIMIT_CORE, &no_core);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execv(argv[first + 1], argv + first + 2);
    fprintf(stderr, "%s: %s\n", argv[first + 1], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
  }
  /* What concerns the program concerns its group, which it gets itself. */
  signal(SIGHUP, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  signal(SIGQUIT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  for (int fd = 0; fd < 3; fd++) close(fd);
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return 125;
  if (WIFSIGNALED(status)) {
    struct rlimit no_core = {1, 1};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(WTERMSIG(status), SIG_DFL);
    kill(getpid(), WTERMSIG(status));
    return 128 + WTERMSIG(status);
  }
  return WEXITSTATUS(status);
}
