"""The first tables."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = (
        migrations.CreateModel(
            "Order",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("paid", models.BooleanField(default=False)),
                ("payer", models.CharField(max_length=40, default="")),
            ],
        ),
    )
