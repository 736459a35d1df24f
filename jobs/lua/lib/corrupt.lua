-- Corrupt jobs: they are noted in the quarantine, and count as failed in their batch.
-- may use: counting, quarantine

local corrupt = {}

function corrupt.set_aside(id, reason)
  quarantine.note(id, reason)
  counting.note(id, 'f')
end

return corrupt
