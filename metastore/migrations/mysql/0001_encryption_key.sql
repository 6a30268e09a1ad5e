-- `id` is bytes: a collation would take ids for one another. `created` is UTC, and DATETIME: no
-- session's time zone shifts it, nothing rewrites it, and it does not end in 2038.
CREATE TABLE IF NOT EXISTS encryption_key (
    id         VARBINARY(255) NOT NULL,
    created    DATETIME       NOT NULL,
    key_record MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    PRIMARY KEY (id, created)
) ENGINE = InnoDB
