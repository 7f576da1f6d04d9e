"""From the API's pydantic models to the CustomResourceDefinitions in `crds/`.

`structural` turns one model into the schema the API server wants, `audit` names what a schema still lacks, `generate`
puts a whole CRD together, and `write` renders it and keeps the folder. `make crds` and its check are the only callers;
nothing here runs in a controller or an agent.
"""
