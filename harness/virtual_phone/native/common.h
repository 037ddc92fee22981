/* What the phone's small native programs share. Static, so that they run with any root folder. */
#ifndef HARNESS_COMMON_H
#define HARNESS_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

static inline void fail(const char *action, const char *object) {
  fprintf(stderr, "%s %s: %s\n", action, object, strerror(errno));
  exit(125);
}

static inline void write_file(const char *path, const char *text) {
  int file = open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0 || write(file, text, strlen(text)) != (ssize_t)strlen(text)) fail("write", path);
  close(file);
}

/* Map the one outer id that the caller has to the one inner id that it gets. */
static inline void map_ids(unsigned inner_uid, unsigned outer_uid, unsigned inner_gid,
                           unsigned outer_gid) {
  char line[64];
  write_file("/proc/self/setgroups", "deny");
  snprintf(line, sizeof line, "%u %u 1", inner_uid, outer_uid);
  write_file("/proc/self/uid_map", line);
  snprintf(line, sizeof line, "%u %u 1", inner_gid, outer_gid);
  write_file("/proc/self/gid_map", line);
}

/* Die with the parent. `parent` is who it was before fork: it may be gone already. */
static inline void die_with(pid_t parent) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL)) fail("prctl", "PR_SET_PDEATHSIG");
  if (parent && getppid() != parent) _exit(125);
}

/* A remount in a user namespace must repeat the flags that the host has set. */
static inline unsigned long present_flags(const char *path) {
  struct statvfs facts;
  if (statvfs(path, &facts)) fail("statvfs", path);
  unsigned long flags = 0;
  if (facts.f_flag & ST_RDONLY) flags |= MS_RDONLY;
  if (facts.f_flag & ST_NOSUID) flags |= MS_NOSUID;
  if (facts.f_flag & ST_NODEV) flags |= MS_NODEV;
  if (facts.f_flag & ST_NOEXEC) flags |= MS_NOEXEC;
  if (facts.f_flag & ST_NOATIME) flags |= MS_NOATIME;
  if (facts.f_flag & ST_NODIRATIME) flags |= MS_NODIRATIME;
  if (facts.f_flag & ST_RELATIME) flags |= MS_RELATIME;
  return flags;
}

#endif
