{{/* Names, labels, images, and what values mean together. */}}

{{- define "roomcast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* Room is left for the longest suffix, `-settings` and the like. */}}
{{- define "roomcast.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "roomcast.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* (list context component) */}}
{{- define "roomcast.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "roomcast.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* (list context component) */}}
{{- define "roomcast.labels" -}}
{{- $root := index . 0 -}}
{{ include "roomcast.selectorLabels" . }}
app.kubernetes.io/part-of: roomcast
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* (list image default-tag) */}}
{{- define "roomcast.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 1) $image.tag }}
{{- end }}
{{- end }}

{{- define "roomcast.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "roomcast.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: which one, with serviceAccount.create=false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "roomcast.secretName" -}}
{{- default (printf "%s-secrets" (include "roomcast.fullname" .)) .Values.secrets.existingSecret }}
{{- end }}

{{/* The secret settings there are, as JSON. */}}
{{- define "roomcast.secretKeys" -}}
{{- if .Values.secrets.existingSecret -}}
{{ .Values.secrets.keys | uniq | sortAlpha | toJson }}
{{- else -}}
{{ keys .Values.secrets.values | sortAlpha | toJson }}
{{- end }}
{{- end }}

{{/* Those that a component may see, as JSON: (list context component). */}}
{{- define "roomcast.secretKeysOf" -}}
{{- $component := index . 1 -}}
{{- $mine := list -}}
{{- range include "roomcast.secretKeys" (index . 0) | fromJsonArray -}}
{{- if eq $component "backend" -}}
{{- if has . (list "JWT_SECRET" "UPSTREAM_TOKEN") }}{{ $mine = append $mine . }}{{ end -}}
{{- else if or (ne . "GPT_API_KEY") (ne $component "node") -}}
{{- $mine = append $mine . -}}
{{- end -}}
{{- end -}}
{{ $mine | toJson }}
{{- end }}

{{/* Every setting that is no secret, as YAML. */}}
{{- define "roomcast.settings" -}}
{{- $settings := dict }}
{{- if .Values.backend.enabled }}
{{- $url := printf "http://%s-backend:8090" (include "roomcast.fullname" .) }}
{{- $settings = dict "AUTH_URL" $url "API_URL" $url "VISION_APP_INFO" "Mozilla" }}
{{- end }}
{{- if .Values.redis.trial.enabled }}
{{- $_ := set $settings "REDIS_URL" (printf "redis://%s-redis:6379" (include "roomcast.fullname" .)) }}
{{- else if .Values.redis.url }}
{{- $_ := set $settings "REDIS_URL" .Values.redis.url }}
{{- end }}
{{- with .Values.redis.tls }}
{{- if .existingSecret }}
{{- range $name, $key := dict "REDIS_TLS_CA_FILE" .caKey "REDIS_TLS_CERT_FILE" .certKey "REDIS_TLS_KEY_FILE" .keyKey }}
{{- if $key }}{{ $_ := set $settings $name (printf "/etc/roomcast/redis-tls/%s" $key) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- $_ := set $settings "ROOMCAST_DRAIN_NOTICE" (printf "%ds" (int .Values.nodes.drain.noticeSeconds)) }}
{{- $_ := set $settings "ROOMCAST_DRAIN_SPREAD" (printf "%ds" (int .Values.nodes.drain.spreadSeconds)) }}
{{- range $name, $value := .Values.settings }}
{{- /* A large number of a values file is a float, which must not become 6.7108864e+07. */}}
{{- $text := toString $value }}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ $text = printf "%.0f" $value }}{{ end }}
{{- $_ := set $settings $name $text }}
{{- end }}
{{- range $name, $value := $settings }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Seconds a node has between SIGTERM, preStop included, and SIGKILL. */}}
{{- define "roomcast.nodeGrace" -}}
{{ add (include "roomcast.nodeDrain" .) .Values.nodes.drain.reserveSeconds }}
{{- end }}

{{/* Seconds from a node's deletion until its last connection is closed. */}}
{{- define "roomcast.nodeDrain" -}}
{{- with .Values.nodes.drain -}}
{{ add .preStopSeconds .noticeSeconds .spreadSeconds }}
{{- end }}
{{- end }}

{{/* What no schema can say: values that need each other. Each message names the value and the cure. */}}
{{- define "roomcast.validate" -}}
{{- $secrets := include "roomcast.secretKeys" . | fromJsonArray }}
{{- $settings := include "roomcast.settings" . | fromYaml }}
{{- range $name, $image := dict "image" .Values.image "redis.trial.image" .Values.redis.trial.image }}
{{- if eq $image.tag "latest" }}
{{- fail (printf "%s.tag: latest says nothing about what runs; give a version" $name) }}
{{- end }}
{{- end }}
{{- if regexMatch "@|[Pp]assword=" .Values.redis.url }}
{{- fail "redis.url: has a password in it, and would be in a ConfigMap; give the whole address as the secret REDIS_URL" }}
{{- end }}
{{- if and .Values.secrets.existingSecret .Values.secrets.values }}
{{- fail "secrets: existingSecret and values are both set; leave one of them empty" }}
{{- end }}
{{- if and .Values.secrets.existingSecret (not .Values.secrets.keys) }}
{{- fail "secrets.keys: name the keys of secrets.existingSecret to use, such as [JWT_SECRET, REDIS_URL]" }}
{{- end }}
{{- if and .Values.secrets.keys (not .Values.secrets.existingSecret) }}
{{- fail "secrets.existingSecret: name the Secret that holds secrets.keys" }}
{{- end }}
{{- range list "AUTH_URL" "API_URL" "VISION_APP_INFO" }}
{{- if not (get $settings .) }}
{{- fail (printf "settings.%s: is required; set it, or backend.enabled=true for a trial" .) }}
{{- end }}
{{- end }}
{{- $places := list }}
{{- if .Values.redis.trial.enabled }}{{ $places = append $places "redis.trial.enabled" }}{{ end }}
{{- if .Values.redis.url }}{{ $places = append $places "redis.url" }}{{ end }}
{{- if has "REDIS_URL" $secrets }}{{ $places = append $places "the secret REDIS_URL" }}{{ end }}
{{- if ne (len $places) 1 }}
{{- $cure := "set one of redis.url (an address without password), the secret REDIS_URL, or redis.trial.enabled=true" }}
{{- fail (printf "redis: %s; %s" (ternary "no Redis is named" (printf "%s are all set" (join " and " $places)) (empty $places)) $cure) }}
{{- end }}
{{- if ne (get $settings "AUTH_MODE") "http" }}
{{- $keys := 0 }}
{{- range list "JWT_SECRET" "JWT_PUBLIC_KEY" }}{{ if has . $secrets }}{{ $keys = add1 $keys }}{{ end }}{{ end }}
{{- if get $settings "JWKS_URL" }}{{ $keys = add1 $keys }}{{ end }}
{{- if ne (int $keys) 1 }}
{{- fail "AUTH_MODE jwt needs exactly one key: set one of the secrets JWT_SECRET and JWT_PUBLIC_KEY or settings.JWKS_URL, or settings.AUTH_MODE=http" }}
{{- end }}
{{- end }}
{{- if and .Values.backend.enabled (not (has "JWT_SECRET" $secrets)) }}
{{- fail "backend: signs tokens with the secret JWT_SECRET; set it: --set secrets.values.JWT_SECRET=$(openssl rand -hex 32)" }}
{{- end }}
{{- with .Values.workers.autoscaling }}
{{- if and .enabled (not $.Values.redis.trial.enabled) (not .redis.addresses) }}
{{- fail "workers.autoscaling.redis.addresses: KEDA asks Redis by itself; give host:port of the server, the sentinels or the cluster" }}
{{- end }}
{{- if and .enabled (eq .redis.mode "sentinel") (not .redis.sentinelMaster) }}
{{- fail "workers.autoscaling.redis.sentinelMaster: name the primary that the sentinels watch, such as mymaster" }}
{{- end }}
{{- end }}
{{- range list "nodes" "workers" }}
{{- with (index $.Values .).autoscaling }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}{{ fail "autoscaling: minReplicas is above maxReplicas" }}{{ end }}
{{- end }}
{{- end }}
{{- with .Values.nodes.autoscaling }}
{{- if and .enabled (not (or .cpuPercent .connections .capacityPercent)) }}
{{- fail "nodes.autoscaling: has no target; set cpuPercent, connections or capacityPercent" }}
{{- end }}
{{- end }}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) }}
{{- fail "gateway.parentRefs: name the Gateway, such as [{name: public, namespace: gateways}]" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts: name the host under which clients come, such as [chat.example.org]" }}
{{- end }}
{{- end }}
