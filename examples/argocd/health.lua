-- Health of a RealtimeAPI or AsyncAPI for Argo CD: its Ready condition decides, the others say why not.
local health = {status = "Progressing", message = "The operator has not looked at it yet"}
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "It is being deleted"
  return health
end
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration == nil or status.observedGeneration < obj.metadata.generation then
  health.message = "The operator has not looked at the latest change yet"
  return health
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local ready, degraded = found.Ready, found.Degraded
if ready == nil then
  return health
end
health.message = (ready.reason or "") .. ": " .. (ready.message or "")
if ready.status == "True" then
  -- It serves requests; the message reports the problem.
  health.status = "Healthy"
elseif ready.reason == "Paused" or ready.reason == "ScaledToZero" then
  health.status = "Suspended"
elseif degraded ~= nil and degraded.status == "True" then
  health.status = "Degraded"
end
return health
