// Everything that a program might try with files. Each line is what was tried and the error, or `ok`.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int tried(const char *what, int result) {
    printf("%s: %s\n", what, result < 0 ? strerror(errno) : "ok");
    return result;
}

static void try_open(const char *path, int flags) {
    int fd = tried(path, open(path, flags, 0666));
    if (fd >= 0) close(fd);
}

int main(void) {
    try_open("/etc/passwd", O_RDONLY);
    try_open("/in/../etc/passwd", O_RDONLY);
    try_open("../../../../etc/passwd", O_RDONLY);
    try_open("/proc/self/environ", O_RDONLY);
    try_open("/in/../in/note", O_RDONLY);
    try_open("in/./note", O_RDONLY);
    try_open("/in/note/", O_RDONLY);
    try_open("/in/note", O_RDWR);
    try_open("/in/new", O_WRONLY | O_CREAT);
    try_open("/new", O_WRONLY | O_CREAT);
    try_open("/out/file", O_WRONLY | O_CREAT | O_EXCL);
    try_open("/out/file", O_WRONLY | O_CREAT | O_EXCL);
    try_open("/out/none/file", O_WRONLY | O_CREAT);
    tried("mkdir", mkdir("/out/dir", 0777));
    tried("mkdir again", mkdir("/out/dir", 0777));
    try_open("/out/dir/deep", O_WRONLY | O_CREAT);
    tried("rmdir of what has entries", rmdir("/out/dir"));
    tried("unlink of a directory", unlink("/out/dir"));
    tried("unlink of an input", unlink("/in/note"));
    tried("rename", rename("/out/dir/deep", "/out/dir/deeper"));
    tried("rename into itself", rename("/out/dir", "/out/dir/dir"));
    tried("rename of an input", rename("/in/note", "/out/note"));
    tried("symlink", symlink("/etc/passwd", "/out/link"));
    tried("link", link("/in/note", "/out/note"));
    char target[64];
    tried("readlink", (int)readlink("/in/note", target, sizeof target));

    int fd = tried("open", open("/out/sparse", O_RDWR | O_CREAT | O_TRUNC, 0666));
    tried("seek", (int)lseek(fd, 10, SEEK_SET));
    tried("write", (int)write(fd, "end", 3));
    tried("seek before the begin", (int)lseek(fd, -14, SEEK_CUR));
    char back[16] = {1};
    tried("pread", (int)pread(fd, back, sizeof back, 0));
    printf("hole of %s\n", memcmp(back, "\0\0\0\0\0\0\0\0\0\0end", 13) ? "something" : "zeros");
    tried("unlink while open", unlink("/out/sparse"));
    struct stat stat_;
    tried("fstat", fstat(fd, &stat_));
    printf("size %lld\n", (long long)stat_.st_size);
    tried("truncate", ftruncate(fd, 5));
    tried("close", close(fd));
    tried("close again", close(fd));

    int append = open("/out/append", O_WRONLY | O_CREAT | O_APPEND, 0666);
    write(append, "one", 3);
    lseek(append, 0, SEEK_SET);
    write(append, "two", 3);
    close(append);

    DIR *dir = opendir("/");
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) printf("/ has %s\n", entry->d_name);
    tried("recv", (int)recv(0, target, 1, 0));
    tried("shutdown", shutdown(1, SHUT_RDWR));
    int files = 0;
    while (open("/in/note", O_RDONLY) >= 0) files++;
    printf("%d more files: %s\n", files, strerror(errno));
    return 0;
}
