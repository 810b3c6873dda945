"""What alembic runs around the revisions: a transaction for each, on the connection it was given.

One for all would hold what it locked first until the last is done: to give `users` a column takes a moment, to index a
million audit events takes seconds, and a release that serves meanwhile could read nobody.
"""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], transactional_ddl=True, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
