// A tile of the Mandelbrot set: x y width size limit -> /out/tile.pgm
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "usage: mandelbrot x y width pixels limit\n"), 2;
    double x = atof(argv[1]), y = atof(argv[2]), width = atof(argv[3]);
    int size = atoi(argv[4]), limit = atoi(argv[5]);
    FILE *tile = fopen("/out/tile.pgm", "w");
    if (!tile) return perror("tile.pgm"), 1;
    fprintf(tile, "P5\n%d %d\n255\n", size, size);
    long inside = 0;
    for (int row = 0; row < size; row++)
        for (int column = 0; column < size; column++) {
            double a = x + width * column / size, b = y + width * row / size, re = 0, im = 0;
            int n = 0;
            for (; n < limit && re * re + im * im <= 4; n++) {
                double next = re * re - im * im + a;
                im = 2 * re * im + b;
                re = next;
            }
            inside += n == limit;
            fputc(n == limit ? 0 : 255 - n * 255 / limit, tile);
        }
    printf("%ld of %d points are in the set\n", inside, size * size);
    return fclose(tile) != 0;
}
