-- ClickHouse reads the records from Kafka, into the tables of clickhouse.sql
--
--     clickhouse-client --database nfct --multiquery < clickhouse-kafka.sql      after clickhouse.sql
--
-- The offset is committed after the rows are in the tables, so a record may be inserted twice (ReplacingMergeTree keeps
-- one of them, see clickhouse.sql), and none is left out. A line that is not a record stops nothing: it is in
-- nfct_unreadable, with what is wrong and where it was.

-- As many consumers as partitions share the work: kafka_num_consumers. Before columns change, DETACH TABLE nfct_kafka.
CREATE TABLE IF NOT EXISTS nfct_kafka
ENGINE = Kafka
SETTINGS kafka_broker_list = 'kafka.example.net:9092', kafka_topic_list = 'nfct', kafka_group_name = 'clickhouse',
    kafka_format = 'JSONEachRow', kafka_handle_error_mode = 'stream', kafka_flush_interval_ms = 2000
EMPTY AS SELECT * FROM nfct_lines;

CREATE TABLE IF NOT EXISTS nfct_unreadable (
    time DateTime64(3, 'UTC'),     -- of the message in Kafka
    topic LowCardinality(String),
    partition UInt64,
    offset UInt64,
    host String,                   -- the key
    error String,
    line String
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, partition, offset)
TTL toDateTime(time) + INTERVAL 30 DAY;

-- Kafka's tables have no DEFAULT; nfct_lines has one for status and count.
CREATE MATERIALIZED VIEW IF NOT EXISTS nfct_kafka_to_lines TO nfct_lines AS
SELECT * REPLACE (if(empty(status), ['unknown'], status) AS status, greatest(count, 1) AS count)
FROM nfct_kafka
WHERE _error = '' AND type != '';

CREATE MATERIALIZED VIEW IF NOT EXISTS nfct_kafka_to_unreadable TO nfct_unreadable AS
SELECT ifNull(_timestamp_ms, now64(3)) AS time, _topic AS topic, _partition AS partition, _offset AS offset,
    _key AS host, if(_error = '', 'has no type', _error) AS error, _raw_message AS line
FROM nfct_kafka
WHERE _error != '' OR type = '';
