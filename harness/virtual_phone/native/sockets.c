/* sockets PID
 *
 * Makes sockets inside the network of process PID for a caller outside: reads {family, type} (two
 * ints) from standard input, which is a Unix socket, and answers with the new socket attached, or
 * with an errno. A socket keeps the network that it was made in.
 */
#define _GNU_SOURCE
#include "common.h"

#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

int main(int argc, char **argv) {
  if (argc != 2) return 125;
  die_with(0);
  int handle = (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0);
  if (handle < 0 || setns(handle, CLONE_NEWUSER | CLONE_NEWNET)) fail("enter", "the network");
  close(handle);
  int wanted[2];
  while (read(0, wanted, sizeof wanted) == (ssize_t)sizeof wanted) {
    int made = socket(wanted[0], wanted[1] | SOCK_CLOEXEC, 0);
    int problem = made < 0 ? errno : 0;
    struct iovec text = {&problem, sizeof problem};
    char space[CMSG_SPACE(sizeof made)] = {0};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    if (made >= 0) {
      message.msg_control = space;
      message.msg_controllen = sizeof space;
      struct cmsghdr *head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(sizeof made);
      memcpy(CMSG_DATA(head), &made, sizeof made);
    }
    if (sendmsg(0, &message, MSG_NOSIGNAL) < 0) return 0;
    if (made >= 0) close(made);
  }
  return 0;
}
