/* The memory of a batch's columns. It is filled by one thread, and constant from then on; references are counted, and
 * dropped by any thread, with the GIL or without. */
#ifndef NFCT_FAST_TABLE_H
#define NFCT_FAST_TABLE_H

#include "nfct_fast/columns/layout.h"
#include "nfct_fast/columns/text_dictionary.h"

enum { ADDRESS_ROOM = 46 }; /* bytes for an address as text: INET6_ADDRSTRLEN */

struct nfct_fast_table;

/* A place for one table that nobody uses any more. Fresh memory costs a page fault for each 4 KiB, which is as much as
 * to fill the columns; whoever drops a batch before the next but one is gathered gives its memory back to that one. */
struct nfct_fast_spare {
    int refs;
    struct nfct_fast_table *table;
};

struct nfct_fast_table {
    int refs;
    char *metadata; /* of the schema, as Arrow has it; NULL: none */
    size_t metadata_size;
    struct nfct_fast_spare *spare; /* where it goes; a reference */
    int whole;                     /* nothing was given back, so that it can be used again */
    int at_least;                  /* `lost` is a lower bound */
    int64_t rows;
    int64_t capacity;    /* rows that there is room for */
    uint64_t lost;       /* events that were reported as lost between the rows */
    int64_t lost_since;  /* ns since the epoch: when none of them was lost yet; 0: not known */
    int64_t lost_until;  /* when the last of them had been lost */
    void *data[COLUMNS]; /* values by row; of text the offsets, one more than rows */
    void *text[COLUMNS]; /* of columns of text; NULL for others */
    void *valid[BITMAPS];
    int64_t nulls[BITMAPS];
    struct nfct_fast_dictionary dictionaries[DICTIONARIES];
    /* What Arrow's arrays point to, so that it lives for as long as one that was moved out of its parent. */
    const void *buffers[COLUMNS][3];
    const void *dictionary_buffers[DICTIONARIES][3];
};

static inline void nfct_fast_bit(void *bits, int64_t row, int value)
{
    ((uint8_t *)bits)[row >> 3] |= (uint8_t)((value != 0) << (row & 7));
}

static inline size_t nfct_fast_bit_bytes(int64_t rows) { return ((size_t)rows + 63) / 64 * 8; }

/* Bytes of column `number` for so many rows; of text those of the offsets. */
static inline size_t nfct_fast_column_bytes(int number, int64_t rows)
{
    int width = nfct_fast_columns[number].width;
    if (width == TEXT_WIDTH)
        return ((size_t)rows + 1) * sizeof(int32_t);
    return width ? (size_t)rows * (size_t)width : nfct_fast_bit_bytes(rows);
}

static int nfct_fast_resize(void **memory, size_t old, size_t bytes, int zero)
{
    void *moved = realloc(*memory, bytes ? bytes : 1);
    if (!moved)
        return -1;
    if (zero && bytes > old)
        memset((char *)moved + old, 0, bytes - old);
    *memory = moved;
    return 0;
}

/* Make room for exactly so many rows, not fewer than there are. -1 without memory: the rows are as they were. */
static int nfct_fast_table_resize(struct nfct_fast_table *table, int64_t rows)
{
    int64_t old = table->capacity;
    int failed = 0;
    for (int i = 0; i < COLUMNS; i++) {
        int width = nfct_fast_columns[i].width;
        failed |= nfct_fast_resize(&table->data[i], old || width != TEXT_WIDTH ? nfct_fast_column_bytes(i, old) : 0,
                                   nfct_fast_column_bytes(i, rows), width == 0 || (width == TEXT_WIDTH && !old));
        if (width == TEXT_WIDTH)
            failed |= nfct_fast_resize(&table->text[i], 0, (size_t)rows * ADDRESS_ROOM, 0);
    }
    for (int i = 0; i < BITMAPS; i++)
        failed |= nfct_fast_resize(&table->valid[i], nfct_fast_bit_bytes(old), nfct_fast_bit_bytes(rows), 1);
    if (failed)
        return -1;
    table->capacity = rows;
    return 0;
}

static struct nfct_fast_table *nfct_fast_table_take(struct nfct_fast_table *table)
{
    __atomic_add_fetch(&table->refs, 1, __ATOMIC_RELAXED);
    return table;
}

static void nfct_fast_table_free(struct nfct_fast_table *table)
{
    if (!table)
        return;
    for (int i = 0; i < COLUMNS; i++) {
        free(table->data[i]);
        free(table->text[i]);
    }
    for (int i = 0; i < BITMAPS; i++)
        free(table->valid[i]);
    for (int i = 0; i < DICTIONARIES; i++)
        nfct_fast_dictionary_free(&table->dictionaries[i]);
    free(table);
}

static void nfct_fast_spare_drop(struct nfct_fast_spare *spare)
{
    if (!spare || __atomic_sub_fetch(&spare->refs, 1, __ATOMIC_ACQ_REL))
        return;
    nfct_fast_table_free(spare->table);
    free(spare);
}

static void nfct_fast_table_drop(struct nfct_fast_table *table)
{
    if (!table || __atomic_sub_fetch(&table->refs, 1, __ATOMIC_ACQ_REL))
        return;
    struct nfct_fast_spare *spare = table->spare;
    free(table->metadata);
    table->metadata = NULL;
    for (int i = 0; i < DICTIONARIES; i++)
        nfct_fast_dictionary_free(&table->dictionaries[i]);
    if (table->whole)
        table = __atomic_exchange_n(&spare->table, table, __ATOMIC_ACQ_REL);
    nfct_fast_table_free(table);
    nfct_fast_spare_drop(spare);
}

/* A table with room for about so many rows, NULL without memory: the spare one if that is of like size. */
static struct nfct_fast_table *nfct_fast_table_new(int64_t rows, struct nfct_fast_spare *spare)
{
    struct nfct_fast_table *table = __atomic_exchange_n(&spare->table, NULL, __ATOMIC_ACQ_REL);
    if (table && (table->capacity < rows / 8 * 7 || table->capacity / 2 > rows)) {
        nfct_fast_table_free(table);
        table = NULL;
    }
    if (table) {
        for (int i = 0; i < COLUMNS; i++)
            if (nfct_fast_columns[i].width == 0)
                memset(table->data[i], 0, nfct_fast_bit_bytes(table->capacity));
        for (int i = 0; i < BITMAPS; i++)
            memset(table->valid[i], 0, nfct_fast_bit_bytes(table->capacity));
        table->rows = 0;
        table->lost = 0;
        table->lost_since = table->lost_until = 0;
        table->at_least = 0;
    } else {
        if (!(table = calloc(1, sizeof(*table))))
            return NULL;
        if (nfct_fast_table_resize(table, rows) < 0) {
            nfct_fast_table_free(table);
            return NULL;
        }
    }
    __atomic_add_fetch(&spare->refs, 1, __ATOMIC_RELAXED);
    table->spare = spare;
    table->whole = 0;
    table->refs = 1;
    return table;
}

/* Give back what memory was not needed, count the nulls and say where everything is: no row will be added. */
static void nfct_fast_table_finish(struct nfct_fast_table *table)
{
    table->whole = table->rows >= table->capacity / 4 * 3;
    if (!table->whole)
        (void)nfct_fast_table_resize(table, table->rows); /* without memory it stays too large, which is no harm */
    for (int i = 0; i < BITMAPS; i++) {
        int64_t known = 0;
        for (size_t at = 0; at < nfct_fast_bit_bytes(table->rows); at += 8) {
            uint64_t word;
            memcpy(&word, (char *)table->valid[i] + at, 8);
            known += __builtin_popcountll(word);
        }
        table->nulls[i] = table->rows - known;
    }
    for (int i = 0; i < COLUMNS; i++) {
        int valid = nfct_fast_columns[i].valid;
        if (table->text[i] && !table->whole)
            (void)nfct_fast_resize(&table->text[i], 0, (size_t)((int32_t *)table->data[i])[table->rows], 0);
        table->buffers[i][0] = valid == ALWAYS || !table->nulls[valid] ? NULL : table->valid[valid];
        table->buffers[i][1] = table->data[i];
        table->buffers[i][2] = table->text[i];
    }
    for (int i = 0; i < DICTIONARIES; i++) {
        static const int32_t none[1];
        struct nfct_fast_dictionary *one = &table->dictionaries[i];
        free(one->slots);
        one->slots = NULL;
        table->dictionary_buffers[i][1] = one->offsets ? one->offsets : none;
        table->dictionary_buffers[i][2] = one->text ? one->text : (const char *)none;
    }
}

/* Bytes of all columns; what is used of them, not what malloc() takes. */
static size_t nfct_fast_table_bytes(const struct nfct_fast_table *table)
{
    size_t bytes = sizeof(*table);
    for (int i = 0; i < COLUMNS; i++) {
        bytes += nfct_fast_column_bytes(i, table->rows);
        if (table->text[i])
            bytes += (size_t)((int32_t *)table->data[i])[table->rows];
    }
    bytes += BITMAPS * nfct_fast_bit_bytes(table->rows);
    for (int i = 0; i < DICTIONARIES; i++)
        bytes += table->dictionaries[i].length + 4 * ((size_t)table->dictionaries[i].count + 1);
    return bytes;
}

#endif
