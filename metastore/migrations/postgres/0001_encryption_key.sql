-- Asherah's table, with the types under which nothing can go wrong: ids are told apart byte by byte,
-- a time means the same in every session's time zone, and a record is JSON or is refused. The Rust
-- implementation of Asherah writes to JSON and JSONB columns only.
CREATE TABLE IF NOT EXISTS encryption_key (
    id         VARCHAR(255) COLLATE "C" NOT NULL,
    created    TIMESTAMPTZ              NOT NULL,
    key_record JSON                     NOT NULL,
    PRIMARY KEY (id, created)
);
