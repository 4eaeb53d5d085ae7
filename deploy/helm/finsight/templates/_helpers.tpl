{{- define "finsight.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "finsight.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "finsight.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "finsight.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels of what is selected by. Arguments: root, component. */}}
{{- define "finsight.selector" -}}
app.kubernetes.io/name: {{ include "finsight.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "finsight.labels" -}}
{{ include "finsight.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: finsight
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "finsight.metadata" -}}
name: {{ include "finsight.fullname" .root }}{{ with .suffix | default .component }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "finsight.labels" . | nindent 2 }}
{{- end }}

{{/* Arguments: root, name of the image. */}}
{{- define "finsight.image" -}}
{{- $image := get .root.Values.images .image -}}
image: {{ if $image.digest }}{{ printf "%s@%s" $image.repository $image.digest }}{{ else }}{{ printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) }}{{ end }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
{{- end }}

{{/* What every pod has: the level "restricted" of the Pod Security Standards, and no token of the Kubernetes API. */}}
{{- define "finsight.pod" -}}
serviceAccountName: {{ include "finsight.fullname" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "finsight.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod may run, of a component's values. */}}
{{- define "finsight.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Resources with GPUs, of a component's values. */}}
{{- define "finsight.resources" -}}
{{- $limits := .resources.limits | default dict -}}
{{- if .gpu.count }}{{ $limits = merge (dict .gpu.resource .gpu.count) $limits }}{{ end -}}
resources:
  requests:
    {{- toYaml .resources.requests | nindent 4 }}
  limits:
    {{- toYaml $limits | nindent 4 }}
{{- end }}

{{- define "finsight.mlflow" -}}
{{- if .Values.mlflow.enabled }}{{ printf "http://%s-mlflow:5000" (include "finsight.fullname" .) }}
{{- else }}{{ required "mlflow.url: where is MLflow? Set it, or mlflow.enabled" .Values.mlflow.url }}{{ end }}
{{- end }}

{{/* Variables out of the Secret. Arguments: root, needed, wanted, and files: those of them that `finsight.secretFiles` mounts. */}}
{{- define "finsight.secrets" -}}
{{- $name := .root.Values.secrets.name }}
{{- $needed := .needed | default list }}
{{- $files := .files | default list }}
{{- range concat $needed (.wanted | default list) }}
{{- if has . $files }}
- {name: {{ . }}_FILE, value: /secrets/{{ . }}}
{{- else }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $name }}, key: {{ . }}{{ if not (has . $needed) }}, optional: true{{ end }}}}
{{- end }}
{{- end }}
{{- end }}

{{/* The volume of those that are files; arguments likewise. A pod has its own alone, and none starts without one that is named. */}}
{{- define "finsight.secretFiles" -}}
{{- $own := list }}
{{- range concat .needed .wanted }}
{{- if has . $.files }}{{ $own = append $own (dict "key" . "path" .) }}{{ end }}
{{- end }}
{{- with $own }}
- name: secrets
  secret:
    secretName: {{ $.root.Values.secrets.name }}
    defaultMode: 288
    items:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- end }}

{{/* What the container of a clone needs beside its secrets. Argument: root. */}}
{{- define "finsight.environment" -}}
- {name: HOME, value: /tmp}
- {name: USER, value: finsight} # DVC asks for it, and an image may know no user 10001
- {name: FINSIGHT_CACHE, value: /cache}
- {name: DVC_SITE_CACHE_DIR, value: /tmp/dvc}
{{- include "finsight.git" . }}
{{- include "finsight.authorities" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Git asks this for a password, and has nothing to write it to. */}}
{{- define "finsight.git" -}}
{{- if .Values.repository.credentials }}
- {name: GIT_CONFIG_COUNT, value: "1"}
- {name: GIT_CONFIG_KEY_0, value: credential.helper}
- {name: GIT_CONFIG_VALUE_0, value: '!f() { test "$1" = get && cat /git/credentials; }; f'}
{{- end }}
{{- end }}

{{/* Where git, boto3, MLflow's client, and what else asks others by https look for whom to trust. */}}
{{- define "finsight.authorities" -}}
{{- if .Values.authorities }}
{{- range list "AWS_CA_BUNDLE" "GIT_SSL_CAINFO" "MLFLOW_TRACKING_SERVER_CERT_PATH" "REQUESTS_CA_BUNDLE" "SSL_CERT_FILE" }}
- {name: {{ . }}, value: /authorities/ca.crt}
{{- end }}
{{- end }}
{{- end }}

{{- define "finsight.authoritiesMount" -}}
{{- if .Values.authorities }}
- {name: authorities, mountPath: /authorities, readOnly: true}
{{- end }}
{{- end }}

{{- define "finsight.authoritiesVolume" -}}
{{- with .Values.authorities }}
- name: authorities
  configMap: {name: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end }}

{{/* The pods of an indexed Job share one volume, each in a folder of its own. Argument: several. */}}
{{- define "finsight.work" -}}
- {name: work, mountPath: /work{{ if .several }}, subPathExpr: node-$(JOB_COMPLETION_INDEX){{ end }}}
{{- end }}

{{/* Arguments: root, and for those that share /work several. */}}
{{- define "finsight.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /cache}
{{ include "finsight.work" . }}
{{- include "finsight.authoritiesMount" .root }}
{{- if .root.Values.repository.credentials }}
- {name: git, mountPath: /git, readOnly: true}
{{- end }}
{{- end }}

{{/* Makes the clone, or brings one that was kept to the revision. A branch is the remote's. Git refuses a folder of another owner, as the
     root of a volume is: so the clone lies below. Arguments: root, image, data (whether the corpora that DVC tracks are wanted too), kept (whether
     the volume outlives its pod), several. */}}
{{- define "finsight.clone" -}}
- name: clone
  {{- include "finsight.image" (dict "root" .root "image" .image) | nindent 2 }}
  workingDir: /work
  command: [/bin/sh, -euc]
  args:
    - |
      {{- if .kept }}
      {{- include "finsight.alone" . | nindent 6 }}
      rm -f finsight/.git/*.lock finsight/.dvc/tmp/rwlock # of a pod that was killed: nobody else is at work here
      {{- end }}
      [ -d finsight/.git ] || git clone --no-checkout "$REPOSITORY" finsight
      cd finsight
      git remote set-url origin "$REPOSITORY"
      git fetch --force --tags --prune origin
      commit=$(git rev-parse --verify --quiet "origin/$REVISION^{commit}" || git rev-parse --verify "$REVISION^{commit}")
      git checkout --force --detach "$commit"
      {{- if .data }}
      dvc remote modify --local minio url "$DVC_REMOTE"
      dvc remote modify --local minio endpointurl "$DVC_ENDPOINT"
      dvc config --local core.remote minio
      git ls-files '*.dvc' | xargs -r dvc pull
      {{- end }}
  env:
    - {name: HOME, value: /tmp}
    - {name: USER, value: finsight}
    - {name: REPOSITORY, value: {{ .root.Values.repository.url | quote }}}
    - {name: REVISION, value: {{ .root.Values.repository.revision | quote }}}
    - {name: GIT_TERMINAL_PROMPT, value: "0"}
    {{- with include "finsight.git" .root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with include "finsight.authorities" .root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if .data }}
    - {name: DVC_SITE_CACHE_DIR, value: /tmp/dvc}
    - {name: AWS_DEFAULT_REGION, value: {{ .root.Values.s3.region | quote }}} # requests are signed for it
    - {name: DVC_REMOTE, value: {{ .root.Values.dvc.remote | quote }}}
    - {name: DVC_ENDPOINT, value: {{ .root.Values.s3.endpoint | default (printf "https://s3.%s.amazonaws.com" .root.Values.s3.region) | quote }}}
    {{- include "finsight.secrets" (dict "root" .root "wanted" (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY")) | trim | nindent 4 }}
    {{- end }}
  resources:
    requests: {cpu: 100m, memory: 512Mi}
    limits: {memory: 2Gi}
  {{- include "finsight.confined" .root | nindent 2 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- include "finsight.work" . | nindent 4 }}
    {{- with include "finsight.authoritiesMount" .root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if .root.Values.repository.credentials }}
    - {name: git, mountPath: /git, readOnly: true}
    {{- end }}
{{- end }}

{{/* Waits for a pod that still works in the same volume, as one of the release before does until its grace period is over. Whatever holds
     the lock, its end releases it. */}}
{{- define "finsight.alone" -}}
exec 9> /work/lock
flock -n 9 || { echo "waits for the training that ends" >&2; flock 9; }
{{- end }}

{{/* Volumes of a clone but /work. Arguments: root, cache, scratch, and for those that train sharedMemory. */}}
{{- define "finsight.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ .scratch }}}
- name: cache
  emptyDir: {sizeLimit: {{ .cache }}}
{{- with .sharedMemory }}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ . }}}
{{- end }}
{{- include "finsight.authoritiesVolume" .root }}
{{- with .root.Values.repository.credentials }}
- name: git
  secret: {secretName: {{ . }}, defaultMode: 288, items: [{key: credentials, path: credentials}]}
{{- end }}
{{- end }}

{{/* Changes with the settings, so that pods are made anew. */}}
{{- define "finsight.checksum" -}}
checksum/settings: {{ include (print .Template.BasePath "/settings.yaml") . | sha256sum }}
{{- end }}
