/* A table as structs of the Arrow C data interface. All of this runs in any thread, with the GIL or without: whoever
 * has taken a batch may release it wherever they like, and column by column. */
#ifndef NFCT_FAST_EXPORT_H
#define NFCT_FAST_EXPORT_H

#include <errno.h>
#include "nfct_fast/columns/arrow_abi.h"
#include "nfct_fast/columns/table.h"

/* Each struct that is handed out owns its own memory in private_data, and a reference to the table: a consumer may move
 * a column out of its batch and keep it for longer. */
struct nfct_fast_schema_of_all {
    struct ArrowSchema *pointers[COLUMNS];
    struct ArrowSchema children[COLUMNS];
    char metadata[];
};

struct nfct_fast_array_of_all {
    struct nfct_fast_table *table;
    const void *buffers[1];
    struct ArrowArray *pointers[COLUMNS];
    struct ArrowArray children[COLUMNS];
};

struct nfct_fast_array_of_column {
    struct nfct_fast_table *table;
    struct ArrowArray dictionary;
};

static void nfct_fast_release_leaf_schema(struct ArrowSchema *schema)
{
    if (schema->dictionary && schema->dictionary->release)
        schema->dictionary->release(schema->dictionary);
    free(schema->private_data);
    schema->release = NULL;
}

static void nfct_fast_release_schema(struct ArrowSchema *schema)
{
    for (int64_t i = 0; i < schema->n_children; i++)
        if (schema->children[i]->release)
            schema->children[i]->release(schema->children[i]);
    free(schema->private_data);
    schema->release = NULL;
}

/* 0 or -ENOMEM. */
static int nfct_fast_export_schema(const struct nfct_fast_table *table, struct ArrowSchema *out)
{
    struct nfct_fast_schema_of_all *all = calloc(1, sizeof(*all) + table->metadata_size);
    if (!all)
        return -ENOMEM;
    *out = (struct ArrowSchema){.format = "+s",
                                .name = "",
                                .metadata = table->metadata ? all->metadata : NULL,
                                .n_children = COLUMNS,
                                .children = all->pointers,
                                .release = nfct_fast_release_schema,
                                .private_data = all};
    if (table->metadata)
        memcpy(all->metadata, table->metadata, table->metadata_size);
    for (int i = 0; i < COLUMNS; i++) {
        const struct nfct_fast_column *column = &nfct_fast_columns[i];
        struct ArrowSchema *child = all->pointers[i] = &all->children[i];
        *child = (struct ArrowSchema){
            .format = column->format, .name = column->name, .flags = column->valid == ALWAYS ? 0 : ARROW_FLAG_NULLABLE};
        if (column->dictionary != PLAIN) {
            struct ArrowSchema *texts = calloc(1, sizeof(*texts));
            if (!texts) {
                out->n_children = i;
                nfct_fast_release_schema(out);
                return -ENOMEM;
            }
            *texts = (struct ArrowSchema){.format = "u", .name = "", .release = nfct_fast_release_leaf_schema};
            child->dictionary = child->private_data = texts;
        }
        child->release = nfct_fast_release_leaf_schema;
    }
    return 0;
}

static void nfct_fast_release_texts(struct ArrowArray *array)
{
    nfct_fast_table_drop(array->private_data);
    array->release = NULL;
}

static void nfct_fast_release_column(struct ArrowArray *array)
{
    struct nfct_fast_array_of_column *one = array->private_data;
    if (one->dictionary.release)
        one->dictionary.release(&one->dictionary);
    nfct_fast_table_drop(one->table);
    free(one);
    array->release = NULL;
}

static void nfct_fast_release_array(struct ArrowArray *array)
{
    struct nfct_fast_array_of_all *all = array->private_data;
    for (int64_t i = 0; i < array->n_children; i++)
        if (array->children[i]->release)
            array->children[i]->release(array->children[i]);
    nfct_fast_table_drop(all->table);
    free(all);
    array->release = NULL;
}

static int nfct_fast_export_column(struct nfct_fast_table *table, int number, struct ArrowArray *out)
{
    const struct nfct_fast_column *column = &nfct_fast_columns[number];
    struct nfct_fast_array_of_column *one = calloc(1, sizeof(*one));
    if (!one)
        return -ENOMEM;
    one->table = nfct_fast_table_take(table);
    *out = (struct ArrowArray){.length = table->rows,
                               .null_count = column->valid == ALWAYS ? 0 : table->nulls[column->valid],
                               .n_buffers = column->width == TEXT_WIDTH ? 3 : 2,
                               .buffers = table->buffers[number],
                               .release = nfct_fast_release_column,
                               .private_data = one};
    if (column->dictionary != PLAIN) {
        one->dictionary = (struct ArrowArray){.length = table->dictionaries[column->dictionary].count,
                                              .n_buffers = 3,
                                              .buffers = table->dictionary_buffers[column->dictionary],
                                              .release = nfct_fast_release_texts,
                                              .private_data = nfct_fast_table_take(table)};
        out->dictionary = &one->dictionary;
    }
    return 0;
}

/* 0 or -ENOMEM. */
static int nfct_fast_export_array(struct nfct_fast_table *table, struct ArrowArray *out)
{
    struct nfct_fast_array_of_all *all = calloc(1, sizeof(*all));
    if (!all)
        return -ENOMEM;
    all->table = nfct_fast_table_take(table);
    *out = (struct ArrowArray){.length = table->rows,
                               .n_buffers = 1,
                               .buffers = all->buffers,
                               .children = all->pointers,
                               .release = nfct_fast_release_array,
                               .private_data = all};
    for (; out->n_children < COLUMNS; out->n_children++) {
        struct ArrowArray *child = all->pointers[out->n_children] = &all->children[out->n_children];
        if (nfct_fast_export_column(table, (int)out->n_children, child) < 0) {
            nfct_fast_release_array(out);
            return -ENOMEM;
        }
    }
    return 0;
}

struct nfct_fast_stream_of_one {
    struct nfct_fast_table *table;
    int is_given;
};

static int nfct_fast_stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out)
{
    const struct nfct_fast_stream_of_one *one = stream->private_data;
    return nfct_fast_export_schema(one->table, out) < 0 ? ENOMEM : 0;
}

/* One array, then the end. */
static int nfct_fast_stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    struct nfct_fast_stream_of_one *one = stream->private_data;
    memset(out, 0, sizeof(*out));
    if (!one->is_given && nfct_fast_export_array(one->table, out) < 0)
        return ENOMEM;
    one->is_given = 1;
    return 0;
}

static const char *nfct_fast_stream_error(struct ArrowArrayStream *stream) { return "out of memory"; }

static void nfct_fast_release_stream(struct ArrowArrayStream *stream)
{
    struct nfct_fast_stream_of_one *one = stream->private_data;
    nfct_fast_table_drop(one->table);
    free(one);
    stream->release = NULL;
}

/* 0 or -ENOMEM. */
static int nfct_fast_export_stream(struct nfct_fast_table *table, struct ArrowArrayStream *out)
{
    struct nfct_fast_stream_of_one *one = calloc(1, sizeof(*one));
    if (!one)
        return -ENOMEM;
    one->table = nfct_fast_table_take(table);
    *out = (struct ArrowArrayStream){.get_schema = nfct_fast_stream_schema,
                                     .get_next = nfct_fast_stream_next,
                                     .get_last_error = nfct_fast_stream_error,
                                     .release = nfct_fast_release_stream,
                                     .private_data = one};
    return 0;
}

#endif
