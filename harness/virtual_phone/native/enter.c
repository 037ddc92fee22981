/* enter PID UID GID FOLDER [RULE=PATH]... -- PROGRAM ARGV0 [ARGUMENT]...
 *
 * Runs PROGRAM inside the namespaces of process PID as user UID, without any capability: a user
 * namespace of its own maps that id, and `exec` as another user than 0 drops what it had.
 * The rules, in the order given:
 *   readonly=PATH  what lies below PATH can be read and executed, but not written
 *   keep=PATH      PATH stays as it was before a readonly above it
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

static int is_rule(const char *rule, const char *name) {
  size_t length = strlen(name);
  return !strncmp(rule, name, length) && rule[length] == '=';
}

static void cover(const char *path, unsigned long flags) {
  if (mount(path, path, NULL, MS_BIND, NULL)) fail("cover", path);
  flags |= MS_REMOUNT | MS_BIND | MS_RDONLY;
  if (mount("none", path, NULL, flags | present_flags(path), NULL)) fail("restrict", path);
}

/* The rules of one process are few; each kept folder is held open until it is put back. */
static void shape(char **rules, int count) {
  int kept[16];
  if (count > 16) fail("take", "so many rules");
  for (int i = 0; i < count; i++) {
    if (!is_rule(rules[i], "keep")) continue;
    kept[i] = open(strchr(rules[i], '=') + 1, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (kept[i] < 0) fail("keep", rules[i]);
  }
  for (int i = 0; i < count; i++) {
    const char *path = strchr(rules[i], '=') + 1;
    if (is_rule(rules[i], "keep")) {
      char held[64];
      snprintf(held, sizeof held, "/proc/self/fd/%d", kept[i]);
      if (mount(held, path, NULL, MS_BIND, NULL)) fail("keep", path);
    } else if (is_rule(rules[i], "hide")) {
      if (mount(nothing, path, NULL, MS_BIND, NULL)) fail("hide", path);
    } else if (is_rule(rules[i], "readonly")) {
      cover(path, 0);
    } else if (is_rule(rules[i], "restrict")) {
      cover(path, MS_NOEXEC | MS_NOSUID | MS_NODEV);
    } else {
      fail("understand", rules[i]);
    }
  }
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
    shape(argv + 5, first - 5);
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
