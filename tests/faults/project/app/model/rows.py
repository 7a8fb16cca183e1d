"""The application's own rows: one for each message that it has handled."""

import sqlalchemy as sa
from sqlalchemy import orm


class Base(orm.DeclarativeBase):
    pass


class Handled(Base):
    """`mark` is the message's own mark (its header X-Mark), `state` the function that handled it."""

    __tablename__ = "handled"

    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True)
    mark: orm.Mapped[str] = orm.mapped_column(sa.String(100), index=True)
    sender: orm.Mapped[str] = orm.mapped_column(sa.String(320))
    recipient: orm.Mapped[str] = orm.mapped_column(sa.String(320))
    state: orm.Mapped[str] = orm.mapped_column(sa.String(60))
    note: orm.Mapped[str] = orm.mapped_column(sa.Text().with_variant(sa.Text(16_000_000), "mysql", "mariadb"), default="")


class Counted(Base):
    """How many messages a sender has written."""

    __tablename__ = "counted"

    sender: orm.Mapped[str] = orm.mapped_column(sa.String(320), primary_key=True)
    value: orm.Mapped[int] = orm.mapped_column(sa.Integer)
