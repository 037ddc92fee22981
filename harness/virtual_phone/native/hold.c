/* hold ROOT < plan
 *
 * Makes the phone's kernel boundary: user, mount, pid, network, IPC and UTS namespaces whose root
 * is ROOT, and stays in them as process 1, which takes in orphans. When hold or its parent dies,
 * the kernel ends every process inside; nothing is left behind.
 *
 * The plan has a mount on each line: KIND<tab>SOURCE<tab>TARGET<tab>OPTIONS, TARGET below ROOT.
 *   bind, rbind   SOURCE of the host appears at TARGET; options ro, noexec, rw
 *   tmpfs         OPTIONS are the file system's (size=...)
 *   proc          the processes of this phone
 *   remount       TARGET (a mount already) gets OPTIONS
 *   binfmt        SOURCE interprets programs of another processor; TARGET is the rule. Needs Linux
 *                 6.7; an older kernel says so in one line and goes on without.
 * When all is in place it prints "READY <process id of the namespace's process 1>".
 */
#define _GNU_SOURCE
#include "common.h"

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const char *root;

static void remount(const char *path, char *options) {
  unsigned long flags = MS_REMOUNT | MS_BIND | MS_NOSUID | present_flags(path);
  for (char *word = strtok(options, ","); word; word = strtok(NULL, ",")) {
    if (!strcmp(word, "ro")) flags |= MS_RDONLY;
    if (!strcmp(word, "noexec")) flags |= MS_NOEXEC;
  }
  if (mount("none", path, NULL, flags, NULL)) fail("remount", path);
}

static void interpret(const char *rule) {
  static const char *folder = "/proc/sys/fs/binfmt_misc";
  if (mount("binfmt_misc", folder, "binfmt_misc", 0, NULL)) {
    fprintf(stderr, "no binfmt_misc in this user namespace: %s\n", strerror(errno));
    return;
  }
  int file = open("/proc/sys/fs/binfmt_misc/register", O_WRONLY | O_CLOEXEC);
  if (file < 0 || write(file, rule, strlen(rule)) < 0)
    fprintf(stderr, "binfmt_misc rule refused: %s\n", strerror(errno));
  if (file >= 0) close(file);
}

static void carry_out(char *line) {
  char *kind = strsep(&line, "\t"), *source = strsep(&line, "\t");
  char *target = strsep(&line, "\t"), *options = strsep(&line, "\t");
  if (!kind || !source || !target || !options) fail("read", "mount plan");
  if (!strcmp(kind, "binfmt")) {
    interpret(target);
    return;
  }
  char path[4096];
  snprintf(path, sizeof path, "%s%s", root, target);
  if (!strcmp(kind, "bind") || !strcmp(kind, "rbind")) {
    unsigned long recursive = kind[0] == 'r' ? MS_REC : 0;
    if (mount(source, path, NULL, MS_BIND | recursive, NULL)) fail("bind", path);
    if (!recursive) remount(path, options);
  } else if (!strcmp(kind, "tmpfs")) {
    if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options)) fail("mount tmpfs", path);
  } else if (!strcmp(kind, "proc")) {
    if (mount("proc", path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
      fail("mount proc", path);
  } else if (!strcmp(kind, "remount")) {
    remount(path, options);
  } else {
    fail("unknown mount", kind);
  }
}

static void loopback_up(void) {
  struct ifreq request = {.ifr_name = "lo"};
  int link = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (link < 0 || ioctl(link, SIOCGIFFLAGS, &request)) fail("read", "lo");
  request.ifr_flags |= IFF_UP;
  if (ioctl(link, SIOCSIFFLAGS, &request)) fail("bring up", "lo");
  close(link);
}

static void settle(void) {
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) fail("make private", "/");
  if (mount(root, root, NULL, MS_BIND | MS_REC, NULL)) fail("bind", root);
  char *line = NULL;
  size_t room = 0;
  ssize_t length;
  char *rules[4] = {0};
  size_t rule_count = 0;
  while ((length = getline(&line, &room, stdin)) > 0) {
    if (line[length - 1] == '\n') line[length - 1] = 0;
    /* The interpreter is opened when it is registered, under the path that it has on the host. */
    if (!strncmp(line, "binfmt\t", 7) && rule_count < 4)
      rules[rule_count++] = strdup(line);
    else
      carry_out(line);
  }
  free(line);
  if (chdir(root)) fail("chdir", root);
  if (syscall(SYS_pivot_root, ".", ".")) fail("pivot_root", root);
  if (umount2(".", MNT_DETACH)) fail("unmount", "the host's root");
  if (chdir("/")) fail("chdir", "/");
  for (size_t i = 0; i < rule_count; i++) carry_out(rules[i]);
  loopback_up();
  if (sethostname("localhost", 9)) fail("sethostname", "localhost");
}

int main(int argc, char **argv) {
  if (argc != 2) return 125;
  root = argv[1];
  die_with(0);
  unsigned uid = geteuid(), gid = getegid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
              CLONE_NEWUTS))
    fail("unshare", "namespaces");
  map_ids(0, uid, 0, gid);
  int ready[2];
  if (pipe2(ready, O_CLOEXEC)) fail("pipe", "");
  pid_t self = fork();
  if (self < 0) fail("fork", "");
  if (self == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ready[0]);
    settle();
    if (write(ready[1], "y", 1) != 1) return 125;
    close(ready[1]);
    for (;;)
      if (wait(NULL) < 0) pause();
  }
  close(ready[1]);
  char answer;
  if (read(ready[0], &answer, 1) == 1) {
    printf("READY %d\n", (int)self);
    fflush(stdout);
  }
  int status;
  waitpid(self, &status, 0);
  return 125;
}
