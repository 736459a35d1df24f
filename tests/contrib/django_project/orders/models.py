"""What the shop sells."""

from django.db import models


class Order(models.Model):
    """An order, which a job pays."""

    paid = models.BooleanField(default=False)
    payer = models.CharField(max_length=40, default="")
