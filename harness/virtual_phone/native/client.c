/* getprop, pm, am, logcat and the other Android commands inside the phone: each is a link to this
 * program, which hands its name, arguments, folder and standard streams to the system (SCM_RIGHTS)
 * and ends with the code that comes back.
 *
 * The message: u32 bytes that follow, then zero-terminated strings: folder, $ANDROID_LOG_TAGS,
 * name, arguments. The answer: i32 exit code.
 */
#include "common.h"

#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static char message[1 << 20];
static size_t used = 4;

static void put(const char *text) {
  size_t length = strlen(text) + 1;
  if (used + length > sizeof message) {
    fputs("cmd: argument list too long\n", stderr);
    exit(126);
  }
  memcpy(message + used, text, length);
  used += length;
}

int main(int argc, char **argv) {
  char folder[4096];
  put(getcwd(folder, sizeof folder) ? folder : "/");
  const char *tags = getenv("ANDROID_LOG_TAGS");
  put(tags ? tags : "");
  const char *name = strrchr(argv[0], '/');
  put(name ? name + 1 : argv[0]);
  for (int i = 1; i < argc; i++) put(argv[i]);
  uint32_t follow = (uint32_t)(used - 4);
  memcpy(message, &follow, 4);

  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/socket/system"};
  int link = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(link, (struct sockaddr *)&address, sizeof address)) {
    fputs("cmd: Can't connect to the system\n", stderr);
    return 20;
  }
  int streams[3] = {0, 1, 2};
  char space[CMSG_SPACE(sizeof streams)] = {0};
  struct iovec text = {message, used};
  struct msghdr packet = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = space,
                          .msg_controllen = sizeof space};
  struct cmsghdr *head = CMSG_FIRSTHDR(&packet);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof streams);
  memcpy(CMSG_DATA(head), streams, sizeof streams);
  ssize_t sent = sendmsg(link, &packet, MSG_NOSIGNAL);
  while (sent > 0 && (size_t)sent < used) {
    ssize_t more = send(link, message + sent, used - (size_t)sent, MSG_NOSIGNAL);
    if (more <= 0) return 20;
    sent += more;
  }
  if (sent <= 0) return 20;
  close(0);
  int32_t code;
  if (recv(link, &code, sizeof code, MSG_WAITALL) != (ssize_t)sizeof code) return 255;
  return code & 255;
}
