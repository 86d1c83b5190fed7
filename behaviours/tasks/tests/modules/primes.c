// The primes from a number up to another one: how many, and the largest.
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: primes from to\n"), 2;
    unsigned long long from = strtoull(argv[1], 0, 10), to = strtoull(argv[2], 0, 10), found = 0, last = 0;
    for (unsigned long long n = from < 2 ? 2 : from; n < to; n++) {
        int prime = 1;
        for (unsigned long long d = 2; d * d <= n && prime; d++) prime = n % d != 0;
        if (prime) found++, last = n;
    }
    printf("%llu primes, the largest is %llu\n", found, last);
    return 0;
}
