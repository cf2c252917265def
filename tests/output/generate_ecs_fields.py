"""Make ecs_fields.txt of the published list: python tests/output/generate_ecs_fields.py < generated/csv/fields.csv

The list is in the repository elastic/ecs (Apache License 2.0), at the tag of the version, such as v9.4.0. Only names
and types are kept, of the field sets that a flow can have; `[]` means that the schema wants an array.
"""

import csv
import sys

SETS = ["base", "container", "destination", "ecs", "event", "group", "host", "network", "process", "related", "source"]
SETS += ["user"]
DEEPEST = 3  # parts of a name; deeper ones are other field sets used again


def main():
    rows = list(csv.DictReader(sys.stdin))
    print(
        f"# Elastic Common Schema {rows[0]['ECS_Version']}, made by generate_ecs_fields.py of elastic/ecs (Apache-2.0)"
    )
    for row in rows:
        if row["Field_Set"] in SETS and row["Field"].count(".") < DEEPEST:
            print(row["Field"], row["Type"] + ("[]" if row["Normalization"] == "array" else ""))


if __name__ == "__main__":
    main()
