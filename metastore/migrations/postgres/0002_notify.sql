-- Tells whoever listens on `claviger_invalidations` which key's records were revoked, rewrapped or
-- deleted, whoever did it. It may be left out: keys are checked by their interval all the same.
CREATE OR REPLACE FUNCTION claviger_notify_invalidation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A row that is gone without this word was lost, and may come back.
    IF TG_OP = 'DELETE' THEN
        PERFORM pg_notify('claviger_invalidations', 'claviger.deleted ' || OLD.id);
    END IF;
    PERFORM pg_notify('claviger_invalidations', OLD.id);
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER claviger_invalidations
    AFTER UPDATE OR DELETE ON encryption_key
    FOR EACH ROW EXECUTE FUNCTION claviger_notify_invalidation();
