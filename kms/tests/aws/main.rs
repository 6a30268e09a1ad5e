//! AWS KMS on moto and LocalStack.
