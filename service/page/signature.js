// Reads a model's signature: which inputs and outputs have names, and an error's input.

/** Return the named inputs of a model; none if its samples are arrays. */
export function namedInputs(model) {
  const items = model.body_schema.properties.inputs.items;
  return [items, ...(items.anyOf ?? [])].some((one) => one.properties) ? model.signature.inputs : [];
}

/** Return the named outputs of a model; none if its values are one array. */
export function namedOutputs(model) {
  const { outputs } = model.signature;
  return outputs.length === 1 && outputs[0].name === "output" ? [] : outputs;
}

/** Return names for `count` classes, if an output has as many labels; else null. */
export function labelsOf(model, count) {
  return model.signature.outputs.find((one) => one.labels?.length === count)?.labels ?? null;
}

/** Return [name, text] if the text of an error begins with the name of an input; else null. */
export function inputOf(detail, inputs) {
  const text = (detail ?? "").replace(/^sample \d+: /, "");
  const found = inputs.find(({ name }) => text.startsWith(`${name}: `) || text.startsWith(`${name} is `));
  return found ? [found.name, text.startsWith(`${found.name}: `) ? text.slice(found.name.length + 2) : text] : null;
}
