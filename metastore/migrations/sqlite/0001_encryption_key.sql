-- Asherah's table. `created` is UTC text, `YYYY-MM-DD HH:MM:SS`; `key_record` is JSON.
CREATE TABLE IF NOT EXISTS encryption_key (
    id         VARCHAR(255) NOT NULL,
    created    TIMESTAMP    NOT NULL,
    key_record TEXT         NOT NULL,
    PRIMARY KEY (id, created)
)
